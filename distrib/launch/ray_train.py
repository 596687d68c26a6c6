"""The Ray launcher: Ray Train places one worker per rank and keeps watch over them."""

from __future__ import annotations

import functools
import importlib
import logging
import os
import re
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from distrib.errors import LaunchError
from distrib.job.reader import Job
from distrib.job.spec import WorkerRange
from distrib.launch.environment import environment_defaults
from distrib.launch.failures import find_cause, log_errors
from distrib.launch.outcome import Outcome
from distrib.launch.watch import Watch
from distrib.runs.layout import RunLayout
from distrib.train.failure import Failure
from distrib.train.host import Assignment, Place

if TYPE_CHECKING:
    import torch.distributed as dist

Result = TypeVar("Result")

_POLL_SECONDS = 0.1
_OBJECT_STORE_BYTES = 128 * 2**20
_LOOPBACK_ADDRESS = "127.0.0.1"
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": str(_POLL_SECONDS),
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_ENABLE_CONTROLLER_STRUCTURED_LOGGING": "0",
    "RAY_TRAIN_ENABLE_WORKER_STRUCTURED_LOGGING": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
"""Ray's own settings for a quiet, quick Ray; whatever the user has set wins."""


class OwnRay:
    """A Ray of this process alone, on loopback, in a temporary folder, gone with it; a context manager.

    Args:
        job: Says how many CPUs the Ray offers: as many as the workers ask for. GPUs are those of the machine.
    """

    def __init__(self, job: Job) -> None:
        resources = job.spec.resources
        workers = resources.workers.max if isinstance(resources.workers, WorkerRange) else resources.workers
        self._num_cpus = workers * resources.cpus_per_worker
        self._environment = ExitStack()
        self.folder = ""

    def __enter__(self) -> Self:
        self.folder = tempfile.mkdtemp(prefix="distrib-ray-")
        token = {} if "RAY_AUTH_MODE" in os.environ else {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": _token()}
        self._environment.enter_context(environment_defaults({**_SETTINGS, **token}))
        return self

    def start_beside(self, work: Callable[[], Result]) -> Result:
        """Starts Ray while a thread does `work`, such as importing the job's modules; returns its result.

        Ray's processes are bound to the thread that starts them, so that must be this one, which stays.

        Raises:
            LaunchError: Ray could not be started.
        """
        with ThreadPoolExecutor(1, thread_name_prefix="prepare") as pool:
            future = pool.submit(work)
            imported = pool.submit(importlib.import_module, "ray.train.torch")
            self._start()
            _start_coordinator()
            result = future.result()
            imported.result()
            return result

    def _start(self) -> None:
        import ray

        on_sigterm = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(
                address="local",
                num_cpus=self._num_cpus,
                include_dashboard=False,
                object_store_memory=_OBJECT_STORE_BYTES,
                log_to_driver=False,
                logging_level=logging.ERROR,
                _temp_dir=self.folder,
                _node_ip_address=_LOOPBACK_ADDRESS,
            )
        except Exception as error:
            raise LaunchError(f"Ray could not be started on this machine: {error}") from error
        finally:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, on_sigterm)  # Ray has put one of its own in place

    def __exit__(self, *exception: object) -> None:
        import ray

        ray.shutdown()
        shutil.rmtree(self.folder, ignore_errors=True)
        self._environment.close()


@functools.cache
def _token() -> str:
    """What lets this process into its Ray; one for all, since Ray remembers the first."""
    return secrets.token_hex(32)


def _start_coordinator() -> None:
    """Starts the actor that every Ray Train run needs first, in a worker process that Ray has ready.

    Ray Train would have it started by its controller, one process after the other; the function is none of Ray's public
    ones, so where it is missing, that is what happens.
    """
    try:
        from ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator import (
            get_or_create_autoscaling_coordinator,
        )
    except ImportError:
        return
    get_or_create_autoscaling_coordinator()  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class RayHost:
    """The launcher as a rank in a Ray Train worker sees it."""

    place: Place
    stop_file: Path

    def open_store(self, timeout: timedelta) -> dist.Store:
        """A store served by rank 0, whose address Ray Train carries to the others."""
        import torch.distributed as dist
        from ray.train.collective import broadcast_from_rank_zero

        store, listener = None, None
        if self.place.rank == 0:
            listener = socket.create_server((_LOOPBACK_ADDRESS, 0), backlog=1024)
            port = listener.getsockname()[1]
            store = dist.TCPStore(
                _LOOPBACK_ADDRESS,
                port,
                self.place.world_size,
                is_master=True,
                timeout=timeout,
                wait_for_workers=False,
                master_listen_fd=listener.detach(),
            )
            broadcast_from_rank_zero(port)
            return store
        port = broadcast_from_rank_zero(None)
        return dist.TCPStore(_LOOPBACK_ADDRESS, port, self.place.world_size, is_master=False, timeout=timeout)

    def stop_requested(self) -> bool:
        """Whether the launcher has asked to stop."""
        return self.stop_file.exists()


class RankFailedError(RuntimeError):
    """A rank has failed and has said why in its error file."""


def train_as_ray_worker(config: dict[str, Any]) -> None:
    """What Ray Train runs in each worker."""
    from ray.train import get_context

    assignment: Assignment = config["assignment"]
    context = get_context()
    place = Place(
        context.get_world_rank(), context.get_world_size(), context.get_local_rank(), socket.gethostname()
    )  # fmt: skip
    layout = RunLayout(assignment.run_folder)
    _redirect_output(layout.rank_log(place.rank))
    os.chdir(assignment.working_directory)
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        os.environ.setdefault(name, "lo")

    from distrib.train.worker import main

    result = main(assignment, RayHost(place, layout.stop_file))
    sys.stdout.flush()  # Ray ends its workers without it
    sys.stderr.flush()
    if result.status == "failed":
        raise RankFailedError("see the rank's error file")


def _redirect_output(path: Path) -> None:
    """Sends what this process prints to the rank's log, past Ray's own capture, which repeats and cuts lines."""
    log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)


class RayLauncher:
    """Runs one attempt on Ray Train with a fixed number of workers.

    Args:
        assignment: What the ranks have in common.
        world_size: How many.
        watch: Told of events and output; asked whether to stop.
        cluster: The Ray to run on.
    """

    def __init__(self, assignment: Assignment, world_size: int, watch: Watch, cluster: OwnRay) -> None:
        self._assignment = assignment
        self._world_size = world_size
        self._watch = watch
        self._cluster = cluster
        self._error: BaseException | None = None

    def run(self) -> Outcome:
        """Runs the attempt to its end."""
        layout = RunLayout(self._assignment.run_folder)
        layout.rank_log(0).parent.mkdir(parents=True, exist_ok=True)
        thread = threading.Thread(target=self._fit, name="ray-train", daemon=True)
        thread.start()
        is_killed = self._follow(thread, layout.stop_file)
        self._watch.drain()
        log_errors(self._assignment.run_folder, self._world_size)
        self._watch.skip_output()
        layout.stop_file.unlink(missing_ok=True)
        if is_killed or (self._error is None and self._watch.has_seen("stop")):
            return Outcome("stopped")
        if self._error is None:
            return Outcome("finished")
        return Outcome("failed", self._find_cause(self._error))

    def _follow(self, thread: threading.Thread, stop_file: Path) -> bool:
        """Passes on what the ranks write until they end; returns whether they had to be ended."""
        deadline: float | None = None
        while thread.is_alive():
            thread.join(0.05)
            self._watch.poll()
            if self._watch.stop_requested() and deadline is None:
                stop_file.touch()
                deadline = time.monotonic() + self._assignment.request.grace_seconds
            if self._watch.kill_requested() or (deadline is not None and time.monotonic() > deadline):
                self._watch.notice("ending at once")
                return True
        return False

    def _fit(self) -> None:
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer

        from distrib.launch.ray_backend import OwnProcessGroup

        request = self._assignment.request
        try:
            trainer = TorchTrainer(
                train_as_ray_worker,
                train_loop_config={"assignment": self._assignment},
                torch_config=OwnProcessGroup(backend=request.backend),
                scaling_config=ScalingConfig(
                    num_workers=self._world_size,
                    use_gpu=request.device == "cuda",
                    resources_per_worker=request.resources_per_worker,
                ),
                run_config=RunConfig(
                    name=self._assignment.run_folder.name,
                    storage_path=self._cluster.folder,
                    failure_config=FailureConfig(max_failures=0, controller_failure_limit=0),  # type: ignore[call-arg]
                ),
            )
            trainer.fit()
        except BaseException as error:
            self._error = error

    def _find_cause(self, error: BaseException) -> Failure:
        """A lost process; else what ranks have written; else what Ray itself says."""
        from ray.train import WorkerGroupError

        causes = error.worker_failures if isinstance(error, WorkerGroupError) else {}
        lost = {rank: cause for rank, cause in causes.items() if not isinstance(cause, RankFailedError)}
        if lost:
            return _failure_on_ray(*min(lost.items()))
        written = find_cause(self._assignment.run_folder, {}, self._world_size)
        return written if written.rank is not None else _failure_on_ray(None, error)


def _failure_on_ray(rank: int | None, error: BaseException) -> Failure:
    """What Ray says of a rank, or of the attempt as a whole, where no rank did."""
    detail = re.search(r"Worker exit detail: (.*?)(?: Some common causes|$)", str(error), re.MULTILINE)
    lost = "" if rank is None else "the rank's process was lost; Ray says: "
    return Failure(
        rank=rank,
        host=socket.gethostname(),
        type=type(error).__name__ if rank is None else "RankLost",
        message=lost + (detail[1] if detail else str(error)),
        traceback=None,
        kind="infrastructure",
        time=time.time(),
    )
