"""Watches the hosts of a cluster while a run trains there."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping

from distrib.compat.ray.kv import HEAD_SECONDS
from distrib.errors import ClusterLostError
from distrib.job.plan import Request
from distrib.launch.launcher import Placement
from distrib.launch.ray.cluster.placement import ClusterHost, list_hosts, place

_PERIOD_SECONDS = 0.5
_SETTLE_SECONDS = 1.5


class NodeMonitor:
    """Polls the hosts twice a second, in a thread, so that a head that does not answer blocks nothing else.

    Each host is probed itself: Ray's head lists a killed one as alive for many seconds, and one whose network is cut
    for a minute.

    Args:
        request: What the run asks for.
    """

    def __init__(self, request: Request) -> None:
        self._request = request
        self._hosts: dict[str, ClusterHost] = {}
        self._dead: set[str] = set()
        self._seen = time.monotonic()
        self._better_since: dict[int, float] = {}
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="node-monitor", daemon=True)
        self._poll()
        self._thread.start()

    def _run(self) -> None:
        while not self._closing.wait(_PERIOD_SECONDS):
            try:
                self._poll()
            except Exception:
                continue

    def _poll(self) -> None:
        hosts = list_hosts(frozenset(self._dead))
        with self._lock:
            self._dead.update(host.node_id for host in hosts if not host.is_answering)
            self._hosts = {host.node_id: host for host in hosts}
            self._seen = time.monotonic()

    def close(self) -> None:
        """Stops polling."""
        self._closing.set()

    def check(self) -> None:
        """Raises ClusterLostError if the cluster's head has not answered for a while."""
        if time.monotonic() - self._seen > HEAD_SECONDS:
            raise ClusterLostError(f"the cluster's head has not answered for {HEAD_SECONDS:.0f} s")

    @property
    def hosts(self) -> list[ClusterHost]:
        """The hosts as of the newest poll."""
        with self._lock:
            return list(self._hosts.values())

    def lost(self, names: Mapping[str, str]) -> str | None:
        """The name of a host that is gone or does not answer.

        Args:
            names: The hosts with ranks on them: names by node id.
        """
        with self._lock:
            for node, name in names.items():
                if node not in self._hosts or node in self._dead:
                    return name
        return None

    def leaving(self, names: Mapping[str, str]) -> str | None:
        """The name of a host among `names` that is being drained."""
        with self._lock:
            return next((name for node, name in names.items() if (h := self._hosts.get(node)) and h.is_leaving), None)

    def better(self, placement: Placement, held: Mapping[str, int]) -> Placement | None:
        """A placement of more workers than now, once there has been room for them for a moment; else None.

        Args:
            placement: Where the workers are.
            held: The number of workers on each host.
        """
        if placement.world_size >= self._request.max_workers:
            return None
        found = place(self.hosts, self._request, held)
        size = 0 if found is None else found.world_size
        if found is None or size <= placement.world_size:
            self._better_since.clear()
            return None
        since = self._better_since.setdefault(size, time.monotonic())
        return found if time.monotonic() - since >= _SETTLE_SECONDS else None
