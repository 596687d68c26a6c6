"""A local Ray cluster for one run on this machine."""

from __future__ import annotations

import functools
import importlib
import logging
import os
import secrets
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self, TypeVar

from distrib.compat.ray.raylet_log import RayletLog
from distrib.compat.ray.start import (
    LOCAL_SETTINGS,
    local_cluster_options,
    silence_worker_deaths,
    start_autoscaling_coordinator,
)
from distrib.errors import LaunchError
from distrib.job.plan import Request
from distrib.job.script import AnyJob
from distrib.job.spec.resources import WorkerRange
from distrib.launch.process.environment import environment_defaults
from distrib.launch.ray.cluster.connection import disconnect, start_idle_worker
from distrib.launch.ray.cluster.reaper import Reaper
from distrib.launch.ray.cluster.settings import RAY_SETTINGS
from distrib.launch.ray.cluster.worker_deaths import WorkerDeaths
from distrib.train.process.lifetime import short_temporary_folders

if TYPE_CHECKING:
    from distrib.launch.launcher import Placement

Result = TypeVar("Result")

_OBJECT_STORE_BYTES = 128 * 2**20
_LONGEST_PARENT = 22
"""The longest temporary folder in which Ray's sockets have paths of at most 107 bytes."""
_LOOPBACK_ADDRESS = "127.0.0.1"


class LocalRay:
    """A Ray cluster of this process alone, on loopback, in a temporary folder; a context manager that ends it.

    Args:
        job: Decides how many CPUs the cluster offers: as many as the workers ask for. GPUs are those of the machine.
    """

    worker_environment: dict[str, str] = {}  # noqa: RUF012 - processes of this machine inherit the environment
    secret_environment: dict[str, str] = {}  # noqa: RUF012

    def __init__(self, job: AnyJob) -> None:
        resources = job.spec.resources
        workers = resources.workers.max if isinstance(resources.workers, WorkerRange) else resources.workers
        self._num_cpus = workers * resources.cpus_per_worker
        self._environment = ExitStack()
        self.worker_deaths = WorkerDeaths(RayletLog.from_the_beginning)
        self._reaper: Reaper | None = None
        self.folder = ""

    def __enter__(self) -> Self:
        with short_temporary_folders(_LONGEST_PARENT):
            self.folder = tempfile.mkdtemp(prefix="distrib-ray-")
        token = {} if "RAY_AUTH_MODE" in os.environ else {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": _token()}
        self._reaper = Reaper(self.folder)
        home = {"HOME": self.folder}  # for a process without one: Ray expands ~
        self._environment.enter_context(environment_defaults({**RAY_SETTINGS, **LOCAL_SETTINGS, **token, **home}))
        return self

    def start_beside(self, work: Callable[[], Result]) -> Result:
        """Starts Ray while a thread does `work`, such as importing the job's modules; returns its result.

        Ray's processes end with the thread that has started them, so that must be this one, which lasts.

        Raises:
            LaunchError: Ray could not be started.
        """
        with ThreadPoolExecutor(1, thread_name_prefix="prepare") as pool:
            future = pool.submit(work)
            imported = pool.submit(importlib.import_module, "ray.train.torch")
            self._start()
            start_autoscaling_coordinator()
            start_idle_worker()
            result = future.result()
            imported.result()
            return result

    def num_gpus(self) -> int:
        """The GPUs of this machine."""
        import torch

        return torch.cuda.device_count()

    def node_monitor(self, request: Request) -> None:
        """The only host needs no monitor."""

    def ask_for_hosts(self, request: Request, num_workers: int) -> None:
        """Does nothing: this machine is the only host."""

    def find_room(
        self,
        request: Request,
        held: dict[str, int],
        *,
        patience_seconds: float | None,
        notice: Callable[[str], None],
        is_stopping: Callable[[], bool],
    ) -> Placement | None:
        """All workers run on this machine, which always has room for the most that are asked for."""
        from distrib.launch.launcher import Placement

        return Placement(request.max_workers)

    def _start(self) -> None:
        import ray

        silence_worker_deaths()
        on_sigterm = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(
                address="local",
                num_cpus=self._num_cpus,
                include_dashboard=False,
                object_store_memory=_OBJECT_STORE_BYTES,
                log_to_driver=False,
                logging_level=logging.ERROR,
                **local_cluster_options(self.folder, _LOOPBACK_ADDRESS),
            )
        except Exception as error:
            raise LaunchError(f"Ray could not be started on this machine: {error}") from error
        finally:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, on_sigterm)  # Ray has installed one

    def close(self, *, is_lost: bool) -> None:
        """Ends all of Ray's processes, even if they do not answer."""
        disconnect(is_lost=is_lost)
        self._environment.close()
        assert self._reaper is not None
        self._reaper.reap()
        shutil.rmtree(self.folder, ignore_errors=True)


@functools.cache
def _token() -> str:
    """The token of this process's clusters; one for all, since Ray remembers the first."""
    return secrets.token_hex(32)
