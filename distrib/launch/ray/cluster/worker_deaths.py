"""Finds out that worker processes end as soon as Ray has started them, which it tries again without an error."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

import psutil

from distrib.compat.ray.raylet_log import RayletLog
from distrib.errors import LaunchError

_POLL_SECONDS = 1.0
_DEAD_SECONDS = 5.0
"""How long all worker processes that were started must be dead: Ray may be about to start another."""
_NUM_LINES = 15


class WorkerDeaths:
    """Watches the worker processes that Ray starts on this host.

    Args:
        open_log: Opens the log of the raylet, which exists from the time on at which this process connects to Ray.
    """

    def __init__(self, open_log: Callable[[], RayletLog]) -> None:
        self._open_log = open_log
        self._log = RayletLog(None)
        self._polled = self._alive = float("-inf")

    def check(self) -> None:
        """Called several times a second as long as no worker runs.

        Raises:
            LaunchError: Every worker process that Ray has started ended before it had registered.
        """
        now = time.monotonic()
        if now - self._polled < _POLL_SECONDS:
            return
        self._polled = now
        if self._log.folder is None:
            self._log = self._open_log()
        dead = self._dead_workers()
        if not dead:
            self._alive = now
        elif now - self._alive >= _DEAD_SECONDS:
            processes = "the worker process that Ray started has" if len(dead) == 1 else "all worker processes have"
            raise self.error(f"{processes} ended before running anything")

    def _dead_workers(self) -> list[int]:
        """The worker processes that Ray has started, if every one of them ended before it had registered."""
        pids = self._log.started_workers()
        return [] if any(_is_alive(pid) or self._log.has_registered(pid) for pid in pids) else pids

    @property
    def place(self) -> str:
        """Where to look further, as the end of a sentence; empty if it is not known."""
        return "" if self._log.folder is None else f"; its logs are in {self._log.folder}"

    def error(self, problem: str) -> LaunchError:
        """The error for workers that cannot start, with the last lines that they have written."""
        lines = self._log.error_lines()[-_NUM_LINES:]
        message = f"Ray cannot start workers on {socket.gethostname()}: {problem}"
        if not lines:
            return LaunchError(f"{message}{self.place}")
        return LaunchError("\n  ".join([f"{message}; the last lines of their output:", *lines]))


def _is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
