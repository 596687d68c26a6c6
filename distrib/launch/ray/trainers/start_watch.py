"""Finds out that Ray cannot start a run's workers, which it tries again and again without an error."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress

import psutil

from distrib.compat.ray.raylet_log import RayletLog
from distrib.errors import LaunchError
from distrib.launch.ray.trainers.handle import TrainerHandle

_POLL_SECONDS = 1.0
_DEAD_SECONDS = 5.0
"""How long all worker processes that were started must be dead: Ray may be about to start another."""
_NOTICE_SECONDS = 30.0
_ENVIRONMENT_SECONDS = 600.0
"""How long Ray lets a host install a runtime environment before a worker starts there."""
_START_VARIABLE, _START_SECONDS = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", 60.0
"""How long Ray Train lets the workers start."""
_NUM_LINES = 15


class StartWatch:
    """Watches one trainer until the first of its workers runs.

    Args:
        trainer: The trainer; one whose workers have run before needs no watching.
        log: Of the raylet on this host, where Ray Train's controller starts, and on one machine all workers.
        notice: Called once with what is waited for if the start takes long.
    """

    def __init__(self, trainer: TrainerHandle, log: RayletLog, notice: Callable[[str], None]) -> None:
        self._trainer = trainer
        self._log = log
        self._notice = notice
        self._began = self._polled = self._alive = time.monotonic()
        self._is_noticed = self._is_over = False

    def poll(self) -> None:
        """Called several times a second.

        Raises:
            LaunchError: The workers cannot start.
        """
        now = time.monotonic()
        if self._is_over or now - self._polled < _POLL_SECONDS:
            return
        self._polled = now
        self._is_over = self._trainer.num_ready > 0
        if self._is_over:
            return
        dead = self._dead_workers()
        if not dead:
            self._alive = now
        elif now - self._alive >= _DEAD_SECONDS:
            processes = "the worker process that Ray started has" if len(dead) == 1 else "all worker processes have"
            raise LaunchError(self._describe(f"{processes} ended before running anything"))
        waited = now - self._began
        limit = _ENVIRONMENT_SECONDS + start_timeout_seconds()
        if waited >= limit:
            raise LaunchError(self._describe(f"no worker has started within {limit:.0f} s"))
        if waited >= _NOTICE_SECONDS and not self._is_noticed:
            self._is_noticed = True
            self._notice(f"waiting for Ray to start the first worker for {waited:.0f} s{self._place()}")

    def _dead_workers(self) -> list[int]:
        """The worker processes that Ray has started, if every one of them ended before it had registered."""
        pids = self._log.started_workers()
        return [] if any(_is_alive(pid) or self._log.has_registered(pid) for pid in pids) else pids

    def _place(self) -> str:
        return "" if self._log.folder is None else f"; its logs are in {self._log.folder}"

    def _describe(self, problem: str) -> str:
        lines = self._log.error_lines()[-_NUM_LINES:]
        message = f"Ray cannot start workers on {socket.gethostname()}: {problem}"
        if not lines:
            return f"{message}{self._place()}"
        return "\n  ".join([f"{message}; the last lines of their output:", *lines])


def start_timeout_seconds() -> float:
    """How long Ray Train lets the workers start once its controller runs."""
    with suppress(ValueError):
        return float(os.environ.get(_START_VARIABLE, _START_SECONDS))
    return _START_SECONDS


def _is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
