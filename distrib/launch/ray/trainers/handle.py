"""A `TorchTrainer` of Ray Train that runs one attempt, and those that follow it with the same workers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ray.train import FailureConfig, RunConfig, ScalingConfig, UserCallback
from ray.train.backend import Backend
from ray.train.torch import TorchConfig, TorchTrainer

from distrib.compat.ray.train import leave_out_cleaner
from distrib.launch.launcher import Placement
from distrib.launch.ray.control_store import RayControlStore
from distrib.launch.ray.trainers.scaling import scaling_settings
from distrib.launch.ray.worker import CANCELLED, WorkerConfig, train_as_ray_worker
from distrib.launch.script.config import AnyConfig

_JOIN_SECONDS = 3.0


class _NoBackend(Backend):
    """Sets up no process group: each rank makes its own, in the same way under every launcher."""

    share_cuda_visible_devices = False

    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        """Does nothing."""

    def on_shutdown(self, worker_group: Any, backend_config: Any) -> None:
        """Does nothing: a worker's end closes its connections."""


@dataclass
class _PlainWorkers(TorchConfig):
    """Has Ray Train start plain workers."""

    @property
    def backend_cls(self) -> type[Backend]:
        """The backend that does nothing."""
        return _NoBackend


class TrainerEndedError(RuntimeError):
    """The launcher has decided that this trainer does not restart its workers."""


class _LauncherDecides(UserCallback):
    """In Ray Train's controller: after a failure, waits for the launcher to decide between a restart and the end."""

    def __init__(self, control: RayControlStore, number: int) -> None:
        self._control = control
        self._number = number
        self._num_failures = 0

    def after_exception(self, run_context: object, worker_exceptions: dict[int, Exception]) -> None:
        """Returns to have Ray Train restart the workers in place; raises to end the trainer."""
        causes = {rank: f"{type(error).__name__}: {error}" for rank, error in worker_exceptions.items()}
        failure = f"{self._number}/{self._num_failures}"
        self._num_failures += 1
        self._control.write(f"ended/{failure}", causes)
        if self._control.await_(f"decision/{failure}") != "restart":
            raise TrainerEndedError("see the run's record")


@dataclass
class TrainerHandle:
    """One `TorchTrainer.fit()` in a thread.

    Attributes:
        control: Through which it is controlled.
        number: Of this trainer among those of the run, from 0.
        placement: Its workers.
        error: What ended it, once it is over, other than success.
    """

    control: RayControlStore
    number: int
    placement: Placement
    error: BaseException | None = None
    _num_failures: int = 0
    _thread: threading.Thread | None = field(default=None, repr=False)

    def start(self, config: AnyConfig, storage_path: str, worker_environment: dict[str, str]) -> None:
        """Starts the workers, which wait until an attempt begins.

        Args:
            config: What the ranks have in common.
            storage_path: A folder for Ray Train's own records, which nothing reads.
            worker_environment: Environment variables of the workers.
        """
        trainer = self._make_trainer(config, storage_path, worker_environment)
        leave_out_cleaner(trainer)
        self._thread = threading.Thread(target=self._run, args=(trainer.fit,), name="ray-train", daemon=True)
        self._thread.start()

    def _make_trainer(self, config: AnyConfig, storage_path: str, environment: dict[str, str]) -> TorchTrainer:
        nodes = self.placement.node_ids
        return TorchTrainer(
            train_as_ray_worker,
            train_loop_config={"worker": WorkerConfig(config, self.control, self.number, nodes is None)},
            torch_config=_PlainWorkers(backend=config.request.backend),
            scaling_config=ScalingConfig(
                num_workers=self.placement.world_size, **scaling_settings(config.request, nodes)
            ),
            run_config=RunConfig(
                name=f"{config.run_folder.name}-{self.control.key[-8:]}-{self.number}",
                storage_path=storage_path,
                failure_config=FailureConfig(max_failures=-1, controller_failure_limit=0),  # type: ignore[call-arg]
                callbacks=[_LauncherDecides(self.control, self.number)],  # type: ignore[list-item]
                worker_runtime_env={"env_vars": environment} if environment else None,
            ),
        )

    def _run(self, fit: Callable[[], object]) -> None:
        try:
            fit()
        except BaseException as error:
            self.error = error

    @property
    def num_ready(self) -> int:
        """The number of workers that have started and wait for an attempt, or have begun one."""
        return self.control.count(f"ready/{self.number}/")

    @property
    def is_ready(self) -> bool:
        """Whether all its workers have started and wait for an attempt, or train."""
        return self.num_ready >= self.placement.world_size

    def begin(self, attempt: int) -> None:
        """Has the workers begin an attempt."""
        self.control.write(f"attempt/{self.number}", attempt)

    def cancel(self) -> None:
        """Ends a trainer whose workers have not begun an attempt."""
        self.end()
        self.begin(CANCELLED)

    @property
    def is_over(self) -> bool:
        """Whether `fit()` has returned or raised."""
        return self._thread is not None and not self._thread.is_alive()

    def causes(self) -> dict[int, str] | None:
        """What Ray reports about each failed worker, if the attempt has failed and a decision is awaited."""
        causes = self.control.read(f"ended/{self.number}/{self._num_failures}")
        return None if causes is None else {int(rank): text for rank, text in causes.items()}

    @property
    def has_failed(self) -> bool:
        """Whether the attempt has failed and a decision is awaited."""
        return self.causes() is not None

    def restart(self) -> None:
        """Has Ray Train restart the workers after a failure."""
        self._decide("restart")

    def end(self) -> None:
        """Ends the trainer at its next failure, or at the one that awaits a decision."""
        self._decide("end")

    def _decide(self, decision: str) -> None:
        self.control.write(f"decision/{self.number}/{self._num_failures}", decision)
        self._num_failures += 1

    def join(self) -> None:
        """Waits a moment for the end."""
        if self._thread is not None:
            self._thread.join(_JOIN_SECONDS)
