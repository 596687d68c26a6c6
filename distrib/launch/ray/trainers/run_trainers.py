"""The Ray Train trainers of one run: one attempt after the other, in place or by another trainer."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from distrib.job.plan import Request
from distrib.launch.launcher import Placement
from distrib.launch.ray.cluster.host_logs import describe_error_logs
from distrib.launch.ray.control_store import SECRETS, RayControlStore
from distrib.launch.ray.trainers.handle import TrainerHandle
from distrib.launch.ray.trainers.start_watch import StartWatch
from distrib.launch.script.config import AnyConfig

if TYPE_CHECKING:
    from distrib.launch.ray.cluster.existing import ExistingRay
    from distrib.launch.ray.cluster.local import LocalRay
    from distrib.launch.ray.cluster.node_monitor import NodeMonitor


class RunTrainers:
    """Starts trainers for the attempts of one run and ends them.

    Attributes:
        control: Through which the launcher, the trainers and the ranks exchange entries.
        held: The number of workers of the present attempt by host.

    Args:
        cluster: The Ray cluster, entered.
        request: What the run asks for.
    """

    def __init__(self, cluster: LocalRay | ExistingRay, request: Request) -> None:
        self._cluster = cluster
        self.request = request
        self.control = RayControlStore(secrets.token_hex(16))
        self.held: dict[str, int] = {}
        self._current: TrainerHandle | None = None
        self._next: TrainerHandle | None = None
        self._started: list[TrainerHandle] = []

    def close(self) -> None:
        """Ends all trainers and removes their entries.

        Raises:
            ClusterLostError: The head does not answer.
        """
        if self._next is not None:
            self._next.cancel()
        if self._current is not None and not self._current.is_over:
            self._current.end()
        for trainer in self._started:
            trainer.join()
        self.control.clear()

    def node_monitor(self) -> NodeMonitor | None:
        """Watches the cluster's hosts; None if there is only this machine."""
        return self._cluster.node_monitor(self.request)

    def find_room(self, notice: Callable[[str], None], is_stopping: Callable[[], bool]) -> Placement | None:
        """The placement of the next attempt's workers; waits for room, or until a stop is requested: then None.

        After a failure, missing hosts are waited for as long as for a rank that hangs.

        Raises:
            LaunchError: The cluster cannot hold the run.
        """
        upcoming, nodes = self._next, self.node_monitor()
        if upcoming is not None and nodes is not None and not upcoming.is_over:
            if nodes.lost({node: node for node in upcoming.placement.node_ids or ()}) is None:
                return upcoming.placement
            upcoming.cancel()
            self._next = None
        return self._cluster.find_room(
            self.request,
            self.held,
            patience_seconds=self.request.hang_timeout_seconds if self._started else None,
            notice=notice,
            is_stopping=is_stopping,
        )

    def ask_for_hosts(self, num_workers: int) -> None:
        """Asks an autoscaler for hosts with room for more workers; 0 asks for none."""
        self._cluster.ask_for_hosts(self.request, num_workers)

    def begin(self, config: AnyConfig, placement: Placement) -> TrainerHandle:
        """Begins an attempt: in place if the workers of the last one can be restarted, else with another trainer."""
        self.held = {}
        upcoming, self._next = self._next, None
        current = self._current
        if upcoming is not None and not upcoming.is_over and upcoming.placement == placement:
            if current is not None and not current.is_over:
                current.end()
            upcoming.begin(config.attempt)
            self._current = upcoming
            return upcoming
        if upcoming is not None:
            upcoming.cancel()
        if current is not None and not current.is_over:
            if current.causes() is not None and current.placement.allows(placement):
                current.begin(config.attempt)
                current.restart()
                return current
            current.end()
        self._current = current = self._start(config, placement)
        current.begin(config.attempt)
        return current

    def start_next(self, config: AnyConfig, placement: Placement) -> None:
        """Starts workers for the next attempt while the ranks of this one still train."""
        self._next = self._start(config, placement)

    @property
    def is_next_ready(self) -> bool:
        """Whether the workers of the next attempt wait for its beginning."""
        return self._next is not None and self._next.is_ready

    def watch_start(self, trainer: TrainerHandle, notice: Callable[[str], None]) -> StartWatch:
        """Watches a trainer until the first of its workers runs."""
        return StartWatch(trainer, self._cluster.worker_deaths, notice)

    def describe_error_logs(self) -> str:
        """What Ray has written last to its error logs on the hosts on which the newest workers were to start."""
        monitor, nodes = self.node_monitor(), self._current.placement.node_ids if self._current else None
        if monitor is None or nodes is None:
            return ""
        return describe_error_logs({host.node_id: host.name for host in monitor.hosts if host.node_id in nodes})

    def _start(self, config: AnyConfig, placement: Placement) -> TrainerHandle:
        trainer = TrainerHandle(self.control, len(self._started), placement)
        self._started.append(trainer)
        self.control.write(SECRETS, self._cluster.secret_environment)
        trainer.start(config, self._cluster.folder, self._cluster.worker_environment)
        return trainer

    def nodes_of(self, attempt: int, world_size: int) -> dict[str, str]:
        """The hosts of those ranks of an attempt that have begun: names by Ray's node id."""
        found = [
            entry for rank in range(world_size) if (entry := self.control.read(f"rank/{attempt}/{rank}")) is not None
        ]
        self.held = dict(Counter(entry["node_id"] for entry in found))
        return {entry["node_id"]: entry["name"] for entry in found}
