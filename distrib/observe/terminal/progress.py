"""Showing a run in the terminal: lines that change in place, or plain lines where nothing can change."""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, TextIO

from distrib.observe.observer import Observer
from distrib.observe.terminal.plain import PlainProgress

if TYPE_CHECKING:
    from distrib.observe.state import RunState
    from distrib.runs.run import Run


class Progress(Observer, Protocol):
    """An observer that shows a run until it has ended, or until the `with` block around it is left.

    Attributes:
        finished_run: The run, once it has ended.
    """

    finished_run: Run | None

    def attach(self, title: str, state: RunState) -> None:
        """Begins to show a run that is already in progress, instead of `started`."""

    def show(self, event: Mapping[str, Any]) -> None:
        """Shows an event that the state contains already."""

    def __enter__(self) -> Self:
        """Shows nothing yet."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Leaves the terminal as it was."""


def make_progress(is_terminal: bool, stream: TextIO) -> Progress:
    """The progress display for a stream.

    Args:
        is_terminal: Whether `stream` is a terminal.
        stream: Where to show it.
    """
    is_unicode = (getattr(stream, "encoding", None) or "utf-8").lower().startswith("utf")
    if is_terminal and is_unicode and os.environ.get("TERM") != "dumb":
        from distrib.observe.terminal.live import LiveProgress

        return LiveProgress(stream)
    return PlainProgress(stream)
