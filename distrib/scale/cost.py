"""What a step costs: α–β models of all-reduce, and the part of it that the backward pass cannot hide.

A message of b bytes over a link costs α + b·β seconds. Sources of the formulas: Thakur, Rabenseifner, Gropp,
"Optimization of Collective Communication Operations in MPICH", 2005 (ring, reduce-scatter and all-gather); Patarasuk,
Yuan, "Bandwidth optimal all-reduce algorithms for clusters of workstations", 2009 (the ring's lower bound); Sanders,
Speck, Träff, "Two-tree algorithms for full bandwidth broadcast, reduction and scan", 2009 (NCCL's double binary tree).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Algorithm = Literal["ring", "tree", "hierarchical", "best"]


@dataclass(frozen=True)
class Link:
    """A connection between two workers.

    Attributes:
        alpha_seconds: What a message costs whatever its size.
        beta_seconds_per_byte: What each of its bytes adds.
    """

    alpha_seconds: float
    beta_seconds_per_byte: float

    @property
    def bits_per_second(self) -> float:
        """The bandwidth; infinite where bytes cost nothing."""
        return 8.0 / self.beta_seconds_per_byte if self.beta_seconds_per_byte else math.inf

    def message_seconds(self, num_bytes: float) -> float:
        """The cost of one message."""
        return self.alpha_seconds + num_bytes * self.beta_seconds_per_byte


@dataclass(frozen=True)
class Topology:
    """Where workers stand: `workers_per_host` on each host, the last one perhaps with fewer."""

    workers: int
    workers_per_host: int = 1

    @property
    def hosts(self) -> int:
        """The number of hosts."""
        return math.ceil(self.workers / self.workers_per_host)


@dataclass(frozen=True)
class Network:
    """The links of a cluster: `intra` between workers of one host, `inter` between hosts, and how they are used."""

    intra: Link
    inter: Link
    algorithm: Algorithm = "ring"

    def all_reduce_seconds(self, num_bytes: float, topology: Topology) -> float:
        """The cost of an all-reduce of `num_bytes` on every worker."""
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
    """One ring through all workers, host by host: each of its 2(N−1) steps waits for the slowest link in it."""
    if topology.workers <= 1:
        return 0.0
    share = num_bytes / topology.workers
    links = [inter] if topology.hosts > 1 else []
    links += [intra] if topology.workers_per_host > 1 else []
    return 2 * (topology.workers - 1) * max(link.message_seconds(share) for link in links or [intra])


def two_level_tree_seconds(num_bytes: float, topology: Topology, intra: Link, inter: Link) -> float:
    """A ring within each host and the double binary tree between hosts, as NCCL arranges its trees."""
    local = ring_seconds(num_bytes, min(topology.workers, topology.workers_per_host), intra)
    return local + tree_seconds(num_bytes, topology.hosts, inter)


def hierarchical_seconds(num_bytes: float, topology: Topology, intra: Link, inter: Link) -> float:
    """Reduce-scatter within hosts, a ring between hosts of each worker's share at once, all-gather within hosts.

    The workers of a host share its link, so all of `num_bytes` pass over it.
    """
    local = min(topology.workers, topology.workers_per_host)
    return ring_seconds(num_bytes, local, intra) + ring_seconds(num_bytes, topology.hosts, inter)


@dataclass(frozen=True)
class Bucket:
    """A bucket of gradients that DDP reduces as one.

    Attributes:
        num_bytes: Its size.
        ready_fraction: When its last gradient is there, as a fraction of the forward and backward pass.
    """

    num_bytes: float
    ready_fraction: float


def exposed_seconds(
    buckets: Iterable[Bucket], compute_seconds: float, all_reduce_seconds: Callable[[float], float]
) -> float:
    """The communication that the backward pass cannot hide: the last all-reduce's end minus the backward pass's end.

    Buckets are reduced in their order, one at a time, each as soon as it is ready and its predecessor is done.
    """
    free_at = 0.0
    for bucket in buckets:
        free_at = max(free_at, bucket.ready_fraction * compute_seconds) + all_reduce_seconds(bucket.num_bytes)
    return max(0.0, free_at - compute_seconds)


@dataclass(frozen=True)
class StepCost:
    """The seconds of an optimizer step, by what they are spent on."""

    data: float
    compute: float
    communication: float
    optimizer: float

    @property
    def seconds(self) -> float:
        """Their sum."""
        return self.data + self.compute + self.communication + self.optimizer

    @property
    def limit(self) -> str:
        """The name of the largest term."""
        terms = {name: getattr(self, name) for name in ("compute", "communication", "data", "optimizer")}
        return max(terms, key=lambda name: terms[name])


@dataclass(frozen=True)
class Workload:
    """What one worker has to do in a step, whatever the number of workers.

    Attributes:
        data_seconds: Waiting for the next batch.
        fixed_seconds: Of the forward and backward pass, what does not depend on the batch.
        seconds_per_sample: What each of the worker's samples adds.
        optimizer_seconds: The update.
        buckets: What is reduced, in DDP's order.
    """

    data_seconds: float
    fixed_seconds: float
    seconds_per_sample: float
    optimizer_seconds: float
    buckets: Sequence[Bucket]

    @property
    def gradient_bytes(self) -> float:
        """The size of all gradients."""
        return sum(bucket.num_bytes for bucket in self.buckets)

    def compute_seconds(self, samples_per_worker: float) -> float:
        """A forward and backward pass over so many samples."""
        return self.fixed_seconds + self.seconds_per_sample * samples_per_worker


def step_cost(
    workload: Workload,
    network: Network,
    topology: Topology,
    samples_per_worker: float,
    *,
    accumulate: int = 1,
    compression: float = 1.0,
    straggling: float = 0.0,
) -> StepCost:
    """What a step costs.

    Args:
        workload: What a worker has to do.
        network: What the workers are joined by.
        topology: How they are placed.
        samples_per_worker: The samples of one micro-batch of one worker.
        accumulate: Micro-batches per step; gradients are reduced beside the last one alone.
        compression: The bytes sent for each byte of gradients.
        straggling: By what fraction of its compute time the slowest worker is behind the mean.
    """
    compute = workload.compute_seconds(samples_per_worker)
    behind = straggling * compute * accumulate if topology.workers > 1 else 0.0
    exposed = 0.0
    if topology.workers > 1:
        exposed = exposed_seconds(
            workload.buckets, compute, lambda num_bytes: network.all_reduce_seconds(num_bytes * compression, topology)
        )
    return StepCost(
        data=workload.data_seconds * accumulate,
        compute=compute * accumulate,
        communication=exposed + behind,
        optimizer=workload.optimizer_seconds,
    )


def expected_straggling(relative_deviation: float, workers: int) -> float:
    """How far the slowest of N workers is behind the mean, at most: σ·√(2·ln N) for normally distributed times."""
    return relative_deviation * math.sqrt(2 * math.log(workers)) if workers > 1 else 0.0


def smallest_batch(efficiency: Callable[[int], float], goal: float, start: int, limit: int = 2**40) -> int | None:
    """The smallest batch, within 1 %, at which `efficiency`, which grows with it, reaches `goal`; None beyond `limit`.

    Args:
        efficiency: The efficiency at a global batch.
        goal: What to reach.
        start: The smallest batch to consider.
        limit: The largest.
    """
    low, high = start, start
    while efficiency(high) < goal:
        low, high = high, 2 * high
        if high > limit:
            return None
    while high - low > max(1, high // 100):
        middle = (low + high) // 2
        low, high = (low, middle) if efficiency(middle) >= goal else (middle, high)
    return high
