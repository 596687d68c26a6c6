"""Continues a run with other workers: because a host is being drained, or because there is room for more of them."""

from __future__ import annotations

import time
from collections.abc import Mapping

from distrib.launch.launcher import Attempt, Placement
from distrib.launch.ray.cluster.node_monitor import NodeMonitor
from distrib.launch.ray.cluster.placement import place
from distrib.launch.ray.trainers.run_trainers import RunTrainers

_READY_SECONDS = 20.0
"""How long workers that start before a resize have to get ready, if there is room for them."""
_CONTROLLER_SECONDS = 3.0
"""The same if there is no room, and only Ray Train's controller can start before."""


class Resize:
    """Starts the next attempt's workers while this attempt trains, then requests it to stop.

    Args:
        attempt: The attempt to end.
        trainers: Those of the run.

    Attributes:
        reason: Why the workers change; None if they do not.
    """

    def __init__(self, attempt: Attempt, trainers: RunTrainers) -> None:
        self._attempt = attempt
        self._trainers = trainers
        self._deadline = 0.0
        self._is_requested = False
        self.reason: str | None = None

    def advance(self, placement: Placement, monitor: NodeMonitor, nodes: Mapping[str, str]) -> None:
        """Decides whether a resize is due, and requests it once its workers are ready; called twice a second.

        Args:
            placement: Where the workers are.
            monitor: Watches the cluster's hosts.
            nodes: The hosts with ranks: names by node id.
        """
        if self.reason is None:
            if self._has_trained():
                self._decide(placement, monitor, nodes)
        elif not self._is_requested and (time.monotonic() > self._deadline or self._trainers.is_next_ready):
            self._is_requested = True
            self._trainers.control.send_command(self._attempt.config.attempt, "stop")

    def _has_trained(self) -> bool:
        """Whether the ranks of this attempt have reached the point from which they read commands."""
        start = self._attempt.monitor.last("start")
        return start is not None and start.get("attempt") == self._attempt.config.attempt

    def _decide(self, placement: Placement, monitor: NodeMonitor, nodes: Mapping[str, str]) -> None:
        request, held = self._trainers.request, self._trainers.held
        leaving, better = monitor.leaving(nodes), monitor.better(placement, held)
        if leaving is not None:
            following = place(monitor.hosts, request, held)
            self.reason = f"{leaving} is being drained"
        elif better is not None:
            following = better
            self.reason = f"there is room for {better.world_size} workers"
        else:
            self._trainers.ask_for_hosts(request.max_workers - placement.world_size)
            return
        self._trainers.ask_for_hosts(0)
        self._attempt.monitor.notice(f"{self.reason}: saving a checkpoint, then continuing")
        self._deadline = time.monotonic()
        if following is not None:
            self._trainers.start_next(self._attempt.config, following)
            beside = place(monitor.hosts, request)
            is_room_for_both = beside is not None and beside.world_size >= following.world_size
            self._deadline += _READY_SECONDS if is_room_for_both else _CONTROLLER_SECONDS
