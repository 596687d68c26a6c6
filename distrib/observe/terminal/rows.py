"""Progress over rows: a line that is redrawn on a terminal, and nothing elsewhere."""

from __future__ import annotations

import os
import time
from typing import Self, TextIO

from distrib.observe.format import duration, rate

_REDRAW_SECONDS = 0.1


class RowsProgress:
    """Shows how many rows are done, how fast, and how long the rest takes; redraws only when it is called.

    Args:
        stream: Where to show it.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream if stream.isatty() and os.environ.get("TERM") != "dumb" else None
        self._first: tuple[float, int] | None = None
        self._drawn = 0.0

    def __call__(self, num_done: int, num_rows: int) -> None:
        """Redraws the line, at most ten times a second."""
        now = time.monotonic()
        if self._first is None and num_done:
            self._first = now, num_done
        if self._stream is None or now - self._drawn < _REDRAW_SECONDS:
            return
        self._drawn = now
        speed = self._speed(now, num_done)
        rest = "" if not speed else f"  {rate(speed)}  {duration((num_rows - num_done) / speed)} left"
        self._draw(f"{num_done:,}/{num_rows:,} rows{rest}" if num_done else "starting …")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._draw("")

    def _speed(self, now: float, num_done: int) -> float:
        """Rows per second since the first ones were done."""
        if self._first is None or now <= self._first[0]:
            return 0.0
        return (num_done - self._first[1]) / (now - self._first[0])

    def _draw(self, text: str) -> None:
        if self._stream is not None:
            print(f"\r\x1b[K{text}", end="", file=self._stream, flush=True)
