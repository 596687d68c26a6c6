"""Signals that ask a run to stop, heard from the moment that the run is asked for to its end."""

from __future__ import annotations

import functools
import signal
import threading
from collections.abc import Callable
from typing import Self

from distrib.errors import StoppedError

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopSignals:
    """Counts SIGINT, SIGTERM and SIGHUP; a context manager around a run.

    At first each also raises KeyboardInterrupt, so that imports and builds end at once. Code of others may swallow it;
    so `begin_claim`, called before anything is written, ends the run where one has come. From `begin_run` on signals
    are only counted, and whoever runs the ranks asks for the count. Outside the main thread they are left alone.
    """

    def __init__(self) -> None:
        self.count = 0
        self._num_tolerated: int | None = 0
        self._restore: list[Callable[[], object]] = []

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                before = signal.signal(number, self._hear)
                self._restore.append(functools.partial(signal.signal, number, before))
        return self

    def __exit__(self, *exception: object) -> None:
        for restore in self._restore:
            restore()

    def begin_claim(self) -> None:
        """From here on a first signal is only counted; a second still raises, since a claim may have to wait.

        Raises:
            StoppedError: One has come already.
        """
        self._num_tolerated = 1
        if self.count:
            raise StoppedError("interrupted")

    def begin_run(self) -> None:
        """From here on signals are only counted."""
        self._num_tolerated = None

    def _hear(self, *_: object) -> None:
        self.count += 1
        if self._num_tolerated is not None and self.count > self._num_tolerated:
            raise KeyboardInterrupt
