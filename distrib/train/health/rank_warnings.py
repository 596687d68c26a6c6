"""Warnings of ranks other than 0, whose output nobody watches: reported once if rank 0 has not given the same."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

_NUMBER = re.compile(r"[-+]?\d+(\.\d+)?(e[-+]?\d+)?")
_MAX_PENDING = 32
"""A rank that has more to report at once has left the rest to its log."""
_MAX_LISTED = 8


class RankWarnings:
    """What this rank has warned of.

    Messages that differ only in their numbers are the same: ranks have different samples.

    Args:
        is_first: Whether this is rank 0.
    """

    def __init__(self, is_first: bool) -> None:
        self._is_first = is_first
        self._given: set[str] = set()
        self._pending: list[str] = []

    @property
    def num_pending(self) -> int:
        """The number of messages that rank 0 is to be given."""
        return len(self._pending)

    def add(self, message: str) -> None:
        """Takes a message into account."""
        kind = _kind(message)
        if kind in self._given:
            return
        self._given.add(kind)
        if not self._is_first and len(self._pending) < _MAX_PENDING:
            self._pending.append(message)

    def take(self) -> list[str]:
        """The messages since the last call."""
        pending, self._pending = self._pending, []
        return pending

    def merge(self, ranks: list[list[str]]) -> list[str]:
        """What rank 0 is to report of the messages that it has been given, by rank: each once, with its ranks."""
        messages: dict[str, tuple[str, list[int]]] = {}
        for rank, given in enumerate(ranks):
            for message in given:
                if (kind := _kind(message)) not in self._given:
                    messages.setdefault(kind, (message, []))[1].append(rank)
        self._given.update(messages)
        return [f"{_named(ranks)}: {message}" for message, ranks in messages.values()]

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Collects what the job's code warns of by Python's `warnings` too; it is still written to the log."""
        show = warnings.showwarning

        def collect(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            show(message, category, filename, lineno, file, line)
            self.add(f"{category.__name__}: {message} ({Path(filename).name}:{lineno})")

        warnings.showwarning = collect
        try:
            yield
        finally:
            if warnings.showwarning is collect:
                warnings.showwarning = show


def _kind(message: str) -> str:
    return _NUMBER.sub("0", message)


def _named(ranks: list[int]) -> str:
    listed = ", ".join(map(str, ranks[:_MAX_LISTED])) + (" …" if len(ranks) > _MAX_LISTED else "")
    return f"rank{'s' if len(ranks) > 1 else ''} {listed}"
