"""Counts the signals that ask a run to stop, from the start of the command to the end of the run."""

from __future__ import annotations

import functools
import signal
import threading
from collections.abc import Callable
from typing import Self

from distrib.errors import StoppedError
from distrib.launch.process.child import FORWARDED_SIGNALS


class StopSignals:
    """Counts SIGINT, SIGTERM and SIGHUP; a context manager around a run.

    At first each also raises KeyboardInterrupt, so that imports and builds end at once. Code of others may swallow it,
    so `begin_acquiring`, called before anything is written, ends the run if a signal has come. After `begin_run`
    signals are only counted, and the launcher reads the count. Outside the main thread signals are left alone. So is a
    SIGHUP that this process was started to ignore, as nohup does.
    """

    def __init__(self) -> None:
        self.count = 0
        self._num_tolerated: int | None = 0
        self._restore: list[Callable[[], object]] = []

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in FORWARDED_SIGNALS:
                if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                    continue
                before = signal.signal(number, self._receive)
                self._restore.append(functools.partial(signal.signal, number, before))
        return self

    def __exit__(self, *exception: object) -> None:
        for restore in self._restore:
            restore()

    def begin_acquiring(self) -> None:
        """From now on a first signal is only counted; a second still raises, since acquiring a run may have to wait.

        Raises:
            StoppedError: A signal has come already.
        """
        self._num_tolerated = 1
        if self.count:
            raise StoppedError("interrupted")

    def begin_run(self) -> None:
        """From now on signals are only counted."""
        self._num_tolerated = None

    def _receive(self, *_: object) -> None:
        self.count += 1
        if self._num_tolerated is not None and self.count > self._num_tolerated:
            raise KeyboardInterrupt
