"""Handles SIGINT and SIGTERM from the start of a command, and defers them during steps that must not be split."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def raise_interrupts() -> None:
    """Makes SIGTERM and SIGINT raise KeyboardInterrupt."""
    for number in _SIGNALS:
        signal.signal(number, signal.default_int_handler)


@contextmanager
def interrupts_held() -> Iterator[Callable[[], None]]:
    """Defers interrupts until the yielded function is called, at the latest until the end of the block."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)

    def release() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    try:
        yield release
    finally:
        release()
