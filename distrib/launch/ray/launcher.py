"""The Ray launcher: Ray Train places one worker per rank and monitors them."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Self, TypeVar

from distrib.errors import ClusterLostError
from distrib.job.plan import Device, LaunchDescription, Request
from distrib.job.script import AnyJob
from distrib.launch.devices import choose_cluster_device
from distrib.launch.ray.cluster.existing import ExistingRay
from distrib.launch.ray.cluster.local import LocalRay
from distrib.launch.ray.trainers.scaling import scaling_settings

if TYPE_CHECKING:
    from distrib.launch.launcher import Attempt, AttemptResult, Placement
    from distrib.launch.ray.trainers.run_trainers import RunTrainers
    from distrib.observe.observer import Observer

Result = TypeVar("Result")


class RayLauncher:
    """Starts each rank as a Ray Train worker.

    Args:
        job: The job.
        address: The cluster to connect to, HOST:PORT of its head or `auto`; None starts a local Ray cluster for the
            duration of the run.
    """

    def __init__(self, job: AnyJob, address: str | None) -> None:
        self._cluster: LocalRay | ExistingRay = LocalRay(job) if address is None else ExistingRay(job, address)
        self._trainers: RunTrainers | None = None

    def __enter__(self) -> Self:
        self._cluster.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        is_lost = any(isinstance(part, ClusterLostError) for part in exception)
        try:
            if self._trainers is not None and not is_lost:
                self._trainers.close()
        except ClusterLostError:
            is_lost = True
        finally:
            self._cluster.close(is_lost=is_lost)
            gc.unfreeze()  # what was frozen while the job's modules were imported

    @property
    def observers(self) -> Sequence[Observer]:
        """The cluster's metrics; a local Ray cluster has none."""
        if isinstance(self._cluster, LocalRay):
            return ()
        from distrib.launch.ray.metrics import RayMetrics

        return (RayMetrics(),)

    def prepare(self, work: Callable[[], Result]) -> Result:
        """Connects to Ray, or starts it, while a thread does the work."""
        return self._cluster.start_beside(work)

    def choose_device(self, job: AnyJob) -> Device:
        """CUDA if the cluster has any GPU; waits until it is connected."""
        return choose_cluster_device(job, self._cluster.num_gpus())

    def describe(self, request: Request) -> LaunchDescription:
        """Ray Train's scaling settings."""
        return LaunchDescription("Ray worker", scaling_settings(request))

    def find_room(
        self, request: Request, notice: Callable[[str], None], is_stopping: Callable[[], bool]
    ) -> Placement | None:
        """Decides on which hosts the next attempt's workers run; waits until there is room."""
        return self._trainers_for(request).find_room(notice, is_stopping)

    def run(self, attempt: Attempt) -> AttemptResult:
        """Runs an attempt with a fixed number of workers."""
        from distrib.launch.ray.attempt import RayAttempt

        return RayAttempt(attempt, self._trainers_for(attempt.config.request)).run()

    def _trainers_for(self, request: Request) -> RunTrainers:
        from distrib.launch.ray.trainers.run_trainers import RunTrainers

        if self._trainers is None:
            self._trainers = RunTrainers(self._cluster, request)
        return self._trainers
