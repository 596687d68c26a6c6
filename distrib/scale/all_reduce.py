"""What an all-reduce costs: α–β models of its algorithms on one or two kinds of links.

A message of b bytes over a link costs α + b·β seconds. Sources of the formulas: Thakur, Rabenseifner, Gropp,
"Optimization of Collective Communication Operations in MPICH", 2005 (ring, reduce-scatter and all-gather); Patarasuk,
Yuan, "Bandwidth optimal all-reduce algorithms for clusters of workstations", 2009 (the ring's lower bound); Sanders,
Speck, Träff, "Two-tree algorithms for full bandwidth broadcast, reduction and scan", 2009 (NCCL's double binary tree).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Algorithm = Literal["ring", "tree", "hierarchical", "best"]


@dataclass(frozen=True)
class Link:
    """A connection between two workers.

    Attributes:
        alpha_seconds: The cost of a message regardless of its size.
        beta_seconds_per_byte: The additional cost of each byte.
    """

    alpha_seconds: float
    beta_seconds_per_byte: float

    @property
    def bits_per_second(self) -> float:
        """The bandwidth; infinite if bytes cost nothing."""
        return 8.0 / self.beta_seconds_per_byte if self.beta_seconds_per_byte else math.inf

    def message_seconds(self, num_bytes: float) -> float:
        """The cost of one message."""
        return self.alpha_seconds + num_bytes * self.beta_seconds_per_byte


@dataclass(frozen=True)
class Topology:
    """How workers are placed: `workers_per_host` on each host; the last host may have fewer."""

    workers: int
    workers_per_host: int = 1

    @property
    def hosts(self) -> int:
        """The number of hosts."""
        return math.ceil(self.workers / self.workers_per_host)


@dataclass(frozen=True)
class Network:
    """A cluster's links, `intra` within a host and `inter` between hosts, and the all-reduce algorithm."""

    intra: Link
    inter: Link
    algorithm: Algorithm = "ring"

    def all_reduce_seconds(self, num_bytes: float, topology: Topology) -> float:
        """The cost of an all-reduce of `num_bytes` per worker; `best` takes the cheapest algorithm."""
        costs = {
            "ring": flat_ring_seconds,
            "tree": two_level_tree_seconds,
            "hierarchical": hierarchical_seconds,
        }
        if self.algorithm == "best":
            return min(cost(num_bytes, topology, self.intra, self.inter) for cost in costs.values())
        return costs[self.algorithm](num_bytes, topology, self.intra, self.inter)


def ring_seconds(num_bytes: float, workers: int, link: Link) -> float:
    """A ring all-reduce: 2(N−1)·α + 2(N−1)/N·b·β (Thakur et al. 2005; Patarasuk, Yuan 2009)."""
    if workers <= 1:
        return 0.0
    return 2 * (workers - 1) * link.message_seconds(num_bytes / workers)


def tree_seconds(num_bytes: float, workers: int, link: Link) -> float:
    """A double binary tree, reduce and then broadcast at full bandwidth: 2·⌈log₂N⌉·α + 2·b·β (Sanders et al. 2009)."""
    if workers <= 1:
        return 0.0
    return 2 * math.ceil(math.log2(workers)) * link.alpha_seconds + 2 * num_bytes * link.beta_seconds_per_byte


def flat_ring_seconds(num_bytes: float, topology: Topology, intra: Link, inter: Link) -> float:
    """One ring through all workers, host by host; each of its 2(N−1) steps waits for the slowest link."""
    if topology.workers <= 1:
        return 0.0
    share = num_bytes / topology.workers
    links = [inter] if topology.hosts > 1 else []
    links += [intra] if topology.workers_per_host > 1 else []
    return 2 * (topology.workers - 1) * max(link.message_seconds(share) for link in links or [intra])


def two_level_tree_seconds(num_bytes: float, topology: Topology, intra: Link, inter: Link) -> float:
    """A ring within each host and a double binary tree between hosts, as NCCL arranges its trees."""
    local = ring_seconds(num_bytes, min(topology.workers, topology.workers_per_host), intra)
    return local + tree_seconds(num_bytes, topology.hosts, inter)


def hierarchical_seconds(num_bytes: float, topology: Topology, intra: Link, inter: Link) -> float:
    """Reduce-scatter within hosts, then a ring between hosts for each worker's share, then all-gather within hosts.

    The workers of a host share its link, so all of `num_bytes` pass over it.
    """
    local = min(topology.workers, topology.workers_per_host)
    return ring_seconds(num_bytes, local, intra) + ring_seconds(num_bytes, topology.hosts, inter)
