"""Ray Train's side of a run: the `fit()`s that carry its attempts, one after the other."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ray.train import FailureConfig, RunConfig, ScalingConfig, UserCallback
from ray.train.torch import TorchTrainer

from distrib.launch.ray.backend import OwnProcessGroup
from distrib.launch.ray.control_store import RayControlStore
from distrib.launch.ray.worker import CANCELLED, train_as_ray_worker
from distrib.train.context import AttemptConfig

_JOIN_SECONDS = 3.0
_NODE_LABEL = "ray.io/node-id"


@dataclass(frozen=True)
class Placement:
    """How many workers an attempt has, and where they may run.

    Attributes:
        world_size: The number of workers.
        node_ids: The hosts, by Ray's ids for them; None leaves it to Ray.
    """

    world_size: int
    node_ids: tuple[str, ...] | None = None

    def allows(self, other: Placement) -> bool:
        """Whether workers placed so are where `other` wants them: as many, and on none but its hosts."""
        if self.node_ids is None or other.node_ids is None:
            return self == other
        return self.world_size == other.world_size and set(self.node_ids) <= set(other.node_ids)


class EndOfFitError(RuntimeError):
    """The launcher has decided that this fit does not go on."""


class _AskLauncher(UserCallback):
    """In Ray Train's controller: has the launcher decide what follows a failure."""

    def __init__(self, board: RayControlStore, number: int) -> None:
        self._board = board
        self._number = number
        self._num_failures = 0

    def after_exception(self, run_context: object, worker_exceptions: dict[int, Exception]) -> None:
        """Returns to have Ray Train start the workers anew, in place; raises to end the fit."""
        causes = {rank: f"{type(error).__name__}: {error}" for rank, error in worker_exceptions.items()}
        failure = f"{self._number}/{self._num_failures}"
        self._num_failures += 1
        self._board.write(f"ended/{failure}", causes)
        if self._board.await_(f"answer/{failure}") != "again":
            raise EndOfFitError("see the run's record")


@dataclass
class TrainerHandle:
    """One `TorchTrainer.fit()`, in a thread of its own: one attempt, and those that follow it in place.

    Attributes:
        placement: Its workers.
        error: What ended it, once it is over, other than success.
    """

    board: RayControlStore
    number: int
    placement: Placement
    error: BaseException | None = None
    _num_failures: int = 0
    _thread: threading.Thread | None = field(default=None, repr=False)

    def start(self, assignment: AttemptConfig, storage_path: str, worker_environment: dict[str, str]) -> None:
        """Begins; `storage_path` is a folder for Ray Train's own records, which nobody reads."""
        trainer = self._trainer(assignment, storage_path, worker_environment)
        self._thread = threading.Thread(target=self._run, args=(trainer.fit,), name="ray-train", daemon=True)
        self._thread.start()

    def _trainer(self, assignment: AttemptConfig, storage_path: str, environment: dict[str, str]) -> TorchTrainer:
        request, nodes = assignment.request, self.placement.node_ids
        config = {"assignment": assignment, "board": self.board.key, "fit": self.number, "alone": nodes is None}
        labels: dict[str, Any] = dict(request.labels)
        if nodes is not None:
            labels[_NODE_LABEL] = f"in({','.join(nodes)})"
        return TorchTrainer(
            train_as_ray_worker,
            train_loop_config=config,
            torch_config=OwnProcessGroup(backend=request.backend),
            scaling_config=ScalingConfig(  # type: ignore[call-arg]  # its types are those of an older Ray Train
                num_workers=self.placement.world_size,
                use_gpu=request.device == "cuda",
                resources_per_worker=request.resources_per_worker,
                placement_strategy=request.placement.upper(),
                label_selector=labels or None,
            ),
            run_config=RunConfig(
                name=f"{assignment.run_folder.name}-{self.board.key[-8:]}-{self.number}",
                storage_path=storage_path,
                failure_config=FailureConfig(max_failures=-1, controller_failure_limit=0),  # type: ignore[call-arg]
                callbacks=[_AskLauncher(self.board, self.number)],  # type: ignore[list-item]
                worker_runtime_env={"env_vars": environment} if environment else None,
            ),
        )

    def _run(self, fit: Callable[[], object]) -> None:
        try:
            fit()
        except BaseException as error:
            self.error = error

    @property
    def is_ready(self) -> bool:
        """Whether all its workers have started and wait for their turn, or train."""
        return self.board.count(f"ready/{self.number}/") >= self.placement.world_size

    def make(self, attempt: int) -> None:
        """Has the workers begin an attempt."""
        self.board.write(f"attempt/{self.number}", attempt)

    def cancel(self) -> None:
        """Ends a fit whose workers have not been told of an attempt."""
        self.give_up()
        self.make(CANCELLED)

    @property
    def is_over(self) -> bool:
        """Whether `fit()` has returned or raised."""
        return self._thread is not None and not self._thread.is_alive()

    def causes(self) -> dict[int, str] | None:
        """What Ray says of each worker that failed, where the attempt has failed and an answer is awaited."""
        causes = self.board.read(f"ended/{self.number}/{self._num_failures}")
        return None if causes is None else {int(rank): text for rank, text in causes.items()}

    def go_on(self) -> None:
        """Has Ray Train start the workers anew after a failure."""
        self._answer("again")

    def give_up(self) -> None:
        """Has the fit end at its next failure, or after the one that awaits an answer."""
        self._answer("end")

    def _answer(self, answer: str) -> None:
        self.board.write(f"answer/{self.number}/{self._num_failures}", answer)
        self._num_failures += 1

    def join(self) -> None:
        """Waits a while for the end."""
        if self._thread is not None:
            self._thread.join(_JOIN_SECONDS)
