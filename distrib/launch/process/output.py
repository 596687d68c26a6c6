"""Sends what this process prints to a log file, including what its native code and its children print."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedWriter, FileIO, TextIOWrapper
from typing import Any

from distrib.runs.layout import RunLayout
from distrib.runs.log_times import LogClock

_OUTPUTS = (1, 2)


def open_standard_streams() -> None:
    """Opens those of the standard streams that this process was started without on /dev/null.

    Otherwise the next files that are opened get their numbers, and printing writes to them.
    """
    for descriptor in (0, *_OUTPUTS):
        try:
            os.fstat(descriptor)
        except OSError:
            os.dup2(os.open(os.devnull, os.O_RDWR), descriptor)
            os.set_inheritable(descriptor, True)
    if sys.stdin is None:
        sys.stdin = os.fdopen(0, closefd=False)
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", closefd=False)


class _TimedOutput(FileIO):
    """A standard stream whose writes are timed.

    Args:
        descriptor: The stream's descriptor.
        clock: Records the times.
    """

    def __init__(self, descriptor: int, clock: LogClock) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self._clock = clock

    def write(self, data: Any, /) -> int:
        """Records the time and writes."""
        self._clock.mark()
        return super().write(data)


def redirect_output(layout: RunLayout, rank: int, host: str) -> None:
    """Appends standard output and standard error to a rank's log from now on; standard input becomes empty.

    Args:
        layout: The run's files.
        rank: The rank.
        host: The name of its host.
    """
    _send_to(layout, rank, host)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    if null:
        os.close(null)


@contextmanager
def output_redirected(layout: RunLayout, rank: int, host: str) -> Iterator[None]:
    """Appends standard output and standard error to a rank's log while in this context; see `redirect_output`."""
    streams = sys.stdout, sys.stderr
    flush_output()
    kept = [os.dup(descriptor) for descriptor in _OUTPUTS]
    _send_to(layout, rank, host)
    try:
        yield
    finally:
        flush_output()  # a Ray worker ends without flushing
        sys.stdout, sys.stderr = streams
        for descriptor, copy in zip(_OUTPUTS, kept, strict=True):
            os.dup2(copy, descriptor)
            os.close(copy)


def flush_output() -> None:
    """Flushes what this process has printed; a full disk or a closed stream is no error."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()


def _send_to(layout: RunLayout, rank: int, host: str) -> None:
    path = layout.rank_log(rank)
    path.parent.mkdir(parents=True, exist_ok=True)
    log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    for descriptor in _OUTPUTS:
        os.dup2(log, descriptor)
    if log not in _OUTPUTS:
        os.close(log)
    clock = LogClock(_OUTPUTS[0], layout.rank_log_times(rank), host)
    sys.stdout, sys.stderr = (_open_text(_TimedOutput(descriptor, clock)) for descriptor in _OUTPUTS)


def _open_text(output: FileIO) -> TextIOWrapper:
    """Like `open`, which names the mode too."""
    text = TextIOWrapper(BufferedWriter(output), encoding="utf-8", errors="backslashreplace", line_buffering=True)
    text.mode = "w"  # type: ignore[misc]
    return text
