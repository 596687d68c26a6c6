"""Sends what this process prints to a log file, including what its native code and its children print."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

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


def redirect_output(path: Path) -> None:
    """Appends standard output and standard error to a file from now on; standard input becomes empty."""
    _send_to(path)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    if null:
        os.close(null)


@contextmanager
def output_redirected(path: Path) -> Iterator[None]:
    """Appends standard output and standard error to a file while in this context."""
    streams = sys.stdout, sys.stderr
    flush_output()
    kept = [os.dup(descriptor) for descriptor in _OUTPUTS]
    _send_to(path)
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


def _send_to(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    for descriptor in _OUTPUTS:
        os.dup2(log, descriptor)
    if log not in _OUTPUTS:
        os.close(log)
    sys.stdout, sys.stderr = (
        os.fdopen(descriptor, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)
        for descriptor in _OUTPUTS
    )
