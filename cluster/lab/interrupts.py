"""Signals that end a command: interrupts from its first moment on, held back where a step must not be cut in two."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def raise_interrupts() -> None:
    """Makes SIGTERM what Ctrl-C is, and Ctrl-C what it is in a terminal: a KeyboardInterrupt."""
    for number in _SIGNALS:
        signal.signal(number, signal.default_int_handler)


@contextmanager
def interrupts_held() -> Iterator[Callable[[], None]]:
    """Holds interrupts back until the function that it gives is called, at the latest until the end of the block."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)

    def release() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    try:
        yield release
    finally:
        release()
