"""Watching a run in the terminal: one line that moves, or plain lines where nothing can move."""

from __future__ import annotations

import os
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self, TextIO

from distrib.observe.observer import Observer
from distrib.observe.plain import PlainProgress

if TYPE_CHECKING:
    from distrib.runs.record import Run


class Progress(Observer, Protocol):
    """An observer that shows a run until it is over, or until the `with` block that it is used in is left.

    Attributes:
        finished_run: The run, once it is over.
    """

    finished_run: Run | None

    def __enter__(self) -> Self:
        """Shows nothing yet."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Leaves the terminal as it was."""


def make_progress(console_is_terminal: bool, stream: TextIO) -> Progress:
    """The progress display that suits a stream.

    Args:
        console_is_terminal: Whether `stream` is a terminal.
        stream: Where to show it.
    """
    if console_is_terminal and os.environ.get("TERM") != "dumb":
        from distrib.observe.live import LiveProgress

        return LiveProgress(stream)
    return PlainProgress(stream)
