"""Retries of requests to an object store, by stamina."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING

from distrib.runs.storage.errors import StorageError

if TYPE_CHECKING:
    import stamina

_FIRST_DELAY_SECONDS = 0.1
_LONGEST_DELAY_SECONDS = 5.0


class Attempt:
    """One attempt of a request, as a context manager; a temporary StorageError leads to the next attempt."""

    def __init__(self, attempt: stamina.Attempt, started: float) -> None:
        self._attempt = attempt
        self._started = started

    @property
    def seconds(self) -> float:
        """The time since the first attempt began."""
        return time.monotonic() - self._started

    def __enter__(self) -> None:
        self._attempt.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return self._attempt.__exit__(kind, error, traceback)


def attempts(patience_seconds: float) -> Iterator[Attempt]:
    """Attempts with growing pauses, until one succeeds, fails for good or the patience ends; the error is raised then.

    Args:
        patience_seconds: How long a temporary error is retried; 0 for a single attempt.
    """
    import stamina

    logging.getLogger("stamina").addHandler(logging.NullHandler())  # without one, each retry is printed on stderr
    started = time.monotonic()
    for attempt in stamina.retry_context(
        on=is_temporary,
        attempts=None if patience_seconds > 0 else 1,
        timeout=patience_seconds or None,
        wait_initial=_FIRST_DELAY_SECONDS,
        wait_max=_LONGEST_DELAY_SECONDS,
        wait_jitter=_FIRST_DELAY_SECONDS,
    ):
        yield Attempt(attempt, started)


def is_temporary(error: Exception) -> bool:
    """Whether a request that failed with this error may succeed later."""
    return isinstance(error, StorageError) and error.kind == "unreachable"
