"""Finds out that Ray cannot start a run's workers, which it tries again and again without an error."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress

from distrib.launch.ray.cluster.worker_deaths import WorkerDeaths
from distrib.launch.ray.trainers.handle import TrainerHandle

_POLL_SECONDS = 1.0
_NOTICE_SECONDS = 30.0
_ENVIRONMENT_SECONDS = 600.0
"""How long Ray lets a host install a runtime environment before a worker starts there."""
_START_VARIABLE, _START_SECONDS = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", 60.0
"""How long Ray Train lets the workers start."""


class StartWatch:
    """Watches one trainer until the first of its workers runs.

    Args:
        trainer: The trainer; one whose workers have run before needs no watching.
        deaths: Of workers on this host, where Ray Train's controller starts, and on one machine all workers.
        notice: Called once with what is waited for if the start takes long.
    """

    def __init__(self, trainer: TrainerHandle, deaths: WorkerDeaths, notice: Callable[[str], None]) -> None:
        self._trainer = trainer
        self._deaths = deaths
        self._notice = notice
        self._began = self._polled = time.monotonic()
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
        self._deaths.check()
        waited = now - self._began
        limit = _ENVIRONMENT_SECONDS + start_timeout_seconds()
        if waited >= limit:
            raise self._deaths.error(f"no worker has started within {limit:.0f} s")
        if waited >= _NOTICE_SECONDS and not self._is_noticed:
            self._is_noticed = True
            self._notice(f"waiting for Ray to start the first worker for {waited:.0f} s{self._deaths.place}")


def start_timeout_seconds() -> float:
    """How long Ray Train lets the workers start once its controller runs."""
    with suppress(ValueError):
        return float(os.environ.get(_START_VARIABLE, _START_SECONDS))
    return _START_SECONDS
