"""The launcher protocol: what starts the ranks of a run's attempts, on this machine or on a cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, Self, TypeVar

if TYPE_CHECKING:
    from distrib.job.plan import Device, LaunchDescription, Request
    from distrib.job.script import AnyJob
    from distrib.launch.monitor import RunMonitor
    from distrib.launch.script.config import AnyConfig
    from distrib.observe.observer import Observer
    from distrib.train.failure import Failure
    from distrib.train.resolved_job import Datasets

Result = TypeVar("Result")


@dataclass(frozen=True)
class Placement:
    """How many workers an attempt has, and where they may run.

    Attributes:
        world_size: The number of workers.
        node_ids: The hosts, by the launcher's ids for them; None if the launcher has only one or chooses itself.
    """

    world_size: int
    node_ids: tuple[str, ...] | None = None

    def allows(self, other: Placement) -> bool:
        """Whether workers placed like this satisfy `other`: equally many, and on none but its hosts."""
        if self.node_ids is None or other.node_ids is None:
            return self == other
        return self.world_size == other.world_size and set(self.node_ids) <= set(other.node_ids)


@dataclass(frozen=True)
class Attempt:
    """One attempt to train a run to its end.

    Attributes:
        config: What all its ranks have in common.
        placement: How many ranks, and where.
        monitor: To be polled while the ranks run; reports requests to stop.
        datasets: Built in this process for forked ranks to inherit; None if each rank has to build its own.
    """

    config: AnyConfig
    placement: Placement
    monitor: RunMonitor
    datasets: Datasets | None = None

    @property
    def world_size(self) -> int:
        """The number of ranks."""
        return self.placement.world_size


@dataclass(frozen=True)
class AttemptResult:
    """How an attempt ended.

    Attributes:
        status: `finished`, `failed`, `stopped` on request, or `resized`: stopped to continue with other workers.
        failure: The cause, if it failed.
        reason: Why the workers change, if they do.
    """

    status: Literal["finished", "failed", "stopped", "resized"]
    failure: Failure | None = None
    reason: str = ""


class Launcher(Protocol):
    """Starts the ranks of one run; a context manager that holds what it needs for that, such as a connection.

    The methods are called in this order: `prepare`, during which `choose_device` is called, then `find_room` and `run`
    once per attempt. `describe` can be called at any time. A rank runs `distrib.train.worker.main`; its output goes to
    its log in the run's folder. Every launcher passes `tests/launch/test_contract.py`.
    """

    def __enter__(self) -> Self:
        """Starts nothing that outlives the context, whatever ends it.

        Raises:
            JobError: The job cannot be trained by this launcher.
        """

    def __exit__(self, *exception: object) -> None:
        """Ends everything that was started."""

    @property
    def observers(self) -> Sequence[Observer]:
        """What receives the run's events for the launcher, such as a cluster's own metrics."""

    def prepare(self, work: Callable[[], Result]) -> Result:
        """Gets ready to start ranks, for example by connecting, while `work` imports the job; returns work's result.

        Raises:
            LaunchError: The ranks could not be started, for example because the cluster cannot be reached.
        """

    def choose_device(self, job: AnyJob) -> Device:
        """Decides `resources.device`; called within `prepare`.

        Raises:
            JobError: The job asks for devices that do not exist.
        """

    def describe(self, request: Request) -> LaunchDescription:
        """What `run` starts for a request: shown by `plan`, and the settings that are then used."""

    def find_room(
        self, request: Request, notice: Callable[[str], None], is_stopping: Callable[[], bool]
    ) -> Placement | None:
        """Decides how many workers the next attempt has, and where; waits for room if there may be some later.

        Args:
            request: What is asked for.
            notice: Called with what is waited for.
            is_stopping: Whether to stop waiting, polled several times a second.

        Returns:
            The placement, or None if a stop was requested first.

        Raises:
            LaunchError: There is no room, and there will be none.
        """

    def run(self, attempt: Attempt) -> AttemptResult:
        """Runs an attempt to its end; no rank outlives the call."""
