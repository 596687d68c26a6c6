"""The hosts of a Ray cluster: which are alive, what each has room for, and where workers go."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import ray

from distrib.compat.ray.cluster import draining_nodes, free_resources
from distrib.job.plan import Request
from distrib.launch.launcher import Placement
from distrib.launch.network import answers

_ANSWER_SECONDS = 1.0
_EPSILON = 1e-6


@dataclass(frozen=True)
class ClusterHost:
    """A host that Ray considers alive.

    Attributes:
        node_id: Ray's id for this life of the host; a host that comes back has another.
        name: Its name and address, for people.
        address: Its address in the cluster.
        port: Where its raylet listens.
        total: All its resources.
        free: Those that are not in use.
        labels: Its labels.
        is_leaving: Whether it is being drained.
        is_answering: Whether its raylet accepts connections now; Ray's head notices a loss much later.
    """

    node_id: str
    name: str
    address: str
    port: int
    total: Mapping[str, float]
    free: Mapping[str, float]
    labels: Mapping[str, str] = field(default_factory=dict)
    is_leaving: bool = False
    is_answering: bool = True

    def room(self, request: Request, held: int = 0, *, is_empty: bool = False) -> int:
        """How many workers fit.

        Args:
            request: What a worker asks for.
            held: Workers of this very run on it, which will have ended.
            is_empty: Whether to count as if nothing were in use.
        """
        if self.is_leaving or not self.is_answering or not _has_labels(self.labels, request.labels):
            return 0
        needed = request.resources_per_worker
        there = dict(self.total)
        if not is_empty:  # workers that have ended already are among what is free, and must not count twice
            there = {k: min(self.total.get(k, 0.0), self.free.get(k, 0.0) + held * v) for k, v in needed.items()}
        return int(min((there.get(k, 0.0) + _EPSILON) // v for k, v in needed.items()))


def list_hosts(known_dead: Container[str] = ()) -> list[ClusterHost]:
    """The hosts that Ray considers alive, each probed for whether it answers.

    Args:
        known_dead: Ids of hosts that have not answered before, which are not probed again.
    """
    free, leaving = free_resources(), draining_nodes()
    nodes = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    with ThreadPoolExecutor(max_workers=min(64, max(1, len(nodes)))) as pool:
        answering = list(pool.map(lambda node: _is_answering(node, known_dead), nodes))
    return [
        ClusterHost(
            node_id=node["NodeID"],
            name=f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})",
            address=node["NodeManagerAddress"],
            port=node["NodeManagerPort"],
            total=node["Resources"],
            free=node["Resources"] if free is None else free.get(node["NodeID"], {}),
            labels=node.get("Labels") or {},
            is_leaving=node["NodeID"] in leaving,
            is_answering=is_answering,
        )
        for node, is_answering in zip(nodes, answering, strict=True)
    ]


def _is_answering(node: Mapping[str, object], known_dead: Container[str]) -> bool:
    if node["NodeID"] in known_dead:
        return False
    address, port = str(node["NodeManagerAddress"]), int(str(node["NodeManagerPort"]))
    return any(answers(address, port, _ANSWER_SECONDS) for _ in range(2))


def place(
    hosts: Iterable[ClusterHost], request: Request, held: Mapping[str, int] | None = None, *, is_empty: bool = False
) -> Placement | None:
    """The placement of as many workers as fit, or None if not even the fewest do.

    Args:
        hosts: The hosts of the cluster.
        request: How many workers, what each needs, and how they are spread.
        held: Workers of this very run by host, which will have ended.
        is_empty: Whether to count as if nothing were in use.
    """
    rooms = {host.node_id: host.room(request, (held or {}).get(host.node_id, 0), is_empty=is_empty) for host in hosts}
    if request.placement == "strict_spread":
        rooms = {node: min(room, 1) for node, room in rooms.items()}
    if request.placement == "strict_pack" and rooms:
        roomiest = max(rooms, key=lambda node: rooms[node])
        rooms = {roomiest: rooms[roomiest]}
    world_size = min(request.max_workers, sum(rooms.values()))
    if world_size < request.min_workers:
        return None
    return Placement(world_size, tuple(node for node, room in rooms.items() if room))


def _has_labels(labels: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """Whether a host's labels match, in Ray's syntax: `a`, `!a`, `in(a,b)` or `!in(a,b)`."""
    for name, condition in wanted.items():
        negated = condition.startswith("!")
        listed = re.fullmatch(r"in\((.*)\)", condition.removeprefix("!"))
        values = [value.strip() for value in listed[1].split(",")] if listed else [condition.removeprefix("!")]
        if (labels.get(name) in values) == negated:
            return False
    return True
