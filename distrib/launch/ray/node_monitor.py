"""Keeping an eye on the hosts of a cluster while a run trains there."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping

from distrib.errors import LaunchError
from distrib.job.plan import Request
from distrib.launch.ray.placement import ClusterHost, look_around, place
from distrib.launch.ray.trainer import Placement

_PERIOD_SECONDS = 0.5
_BLIND_SECONDS = 60.0
_SETTLE_SECONDS = 1.5


class NodeMonitor:
    """Looks at the hosts twice a second, in a thread, so that a head that does not answer holds nobody up.

    Hosts are asked themselves: Ray's head lists a killed one as alive for many seconds and a cut-off one for a minute.

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
        self._thread = threading.Thread(target=self._watch, name="host-watch", daemon=True)
        self._look()
        self._thread.start()

    def _watch(self) -> None:
        while not self._closing.wait(_PERIOD_SECONDS):
            try:
                self._look()
            except Exception:
                continue

    def _look(self) -> None:
        hosts = look_around(frozenset(self._dead))
        with self._lock:
            self._dead.update(host.node_id for host in hosts if not host.is_answering)
            self._hosts = {host.node_id: host for host in hosts}
            self._seen = time.monotonic()

    def close(self) -> None:
        """Looks no more."""
        self._closing.set()

    def check(self) -> None:
        """Raises LaunchError where the cluster's head has not answered for a minute."""
        if time.monotonic() - self._seen > _BLIND_SECONDS:
            raise LaunchError(f"the cluster's head has not answered for {_BLIND_SECONDS:.0f} s; the run is resumable")

    @property
    def hosts(self) -> list[ClusterHost]:
        """The hosts as they were a moment ago."""
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
        """A placement of more workers than there are now, once there has been room for them for a moment.

        Args:
            placement: Where the workers are.
            held: How many on each host.
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
