"""What an optimizer step costs, and how much of its communication the backward pass cannot hide."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from distrib.scale.all_reduce import Network, Topology
from distrib.scale.measurement import GradientBucket
from distrib.scale.result import StepSplit


@dataclass(frozen=True)
class Workload:
    """The work of one worker in a step, independent of the number of workers.

    Attributes:
        data_seconds: Waiting for the next batch.
        fixed_seconds: The part of a forward and backward pass that does not depend on the batch size.
        seconds_per_sample: The additional time of each of the worker's samples.
        optimizer_seconds: The update.
        buckets: The gradients to reduce, in DDP's order.
    """

    data_seconds: float
    fixed_seconds: float
    seconds_per_sample: float
    optimizer_seconds: float
    buckets: Sequence[GradientBucket]

    def compute_seconds(self, samples_per_worker: float) -> float:
        """A forward and backward pass over this many samples."""
        return self.fixed_seconds + self.seconds_per_sample * samples_per_worker


def exposed_seconds(
    buckets: Iterable[GradientBucket], compute_seconds: float, all_reduce_seconds: Callable[[float], float]
) -> float:
    """The communication that compute cannot hide: from the end of the backward pass to the end of the last all-reduce.

    Buckets are reduced in order, one at a time, each as soon as it is ready and the previous one is done.
    """
    free_at = 0.0
    for bucket in buckets:
        free_at = max(free_at, bucket.ready_fraction * compute_seconds) + all_reduce_seconds(bucket.num_bytes)
    return max(0.0, free_at - compute_seconds)


def step_cost(
    workload: Workload,
    network: Network,
    topology: Topology,
    samples_per_worker: float,
    *,
    accumulate: int = 1,
    compression: float = 1.0,
    straggling: float = 0.0,
) -> StepSplit:
    """The cost of a step.

    Args:
        workload: The work of one worker.
        network: The links between workers.
        topology: The placement of workers.
        samples_per_worker: Samples of one micro-batch of one worker.
        accumulate: Micro-batches per step; gradients are reduced only during the last one.
        compression: Bytes sent per byte of gradients.
        straggling: The fraction of compute time by which the slowest worker is behind the mean.
    """
    compute = workload.compute_seconds(samples_per_worker)
    behind = exposed = 0.0
    if topology.workers > 1:
        behind = straggling * compute * accumulate
        exposed = exposed_seconds(
            workload.buckets, compute, lambda num_bytes: network.all_reduce_seconds(num_bytes * compression, topology)
        )
    return StepSplit(
        data=workload.data_seconds * accumulate,
        compute=compute * accumulate,
        communication=exposed + behind,
        optimizer=workload.optimizer_seconds,
    )


def expected_straggling(relative_deviation: float, workers: int) -> float:
    """An upper bound on how far the slowest of N workers is behind the mean: σ·√(2·ln N) for normal times."""
    return relative_deviation * math.sqrt(2 * math.log(workers)) if workers > 1 else 0.0


def smallest_batch(efficiency: Callable[[int], float], goal: float, start: int, limit: int = 2**40) -> int | None:
    """The smallest batch, within 1 %, at which `efficiency` reaches `goal`; None if it exceeds `limit`.

    Args:
        efficiency: The efficiency at a global batch size; must increase with it.
        goal: The efficiency to reach.
        start: The smallest batch to consider.
        limit: The largest batch to consider.
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
