"""The links of a cluster, fitted to all-reduces that the ranks measured, and extrapolated to more workers."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from distrib.scale.all_reduce import Link, Network, Topology
from distrib.scale.fit import Timing, fit_growth, fit_ring
from distrib.scale.measurement import MeasuredRun

Case = Literal["optimistic", "central", "pessimistic"]


@dataclass(frozen=True)
class Links:
    """The fitted links of the cluster.

    Attributes:
        inter: Between hosts; within the host if all workers ran on one.
        intra: Within a host, fitted to sizes that fit on one host; equal to `inter` if there are none.
        workers_per_host: The most workers on a host.
        alphas: α of `inter` by number of workers, each from its own sweep.
        relative_error: Standard error of the fit of `inter`.
        is_best: Whether the cheapest all-reduce algorithm is used, as by NCCL; otherwise a ring, as by gloo.
    """

    inter: Link
    intra: Link
    workers_per_host: int
    alphas: Mapping[int, float]
    relative_error: float
    is_best: bool

    @property
    def is_uniform(self) -> bool:
        """Whether all links are alike."""
        return self.intra == self.inter

    def topology(self, workers: int) -> Topology:
        """The placement of this many workers."""
        return Topology(workers, 1 if self.is_uniform else self.workers_per_host)

    def network(self, workers: int, case: Case = "central") -> Network:
        """The links at a number of workers."""
        sign = {"optimistic": -1, "central": 0, "pessimistic": 1}[case]
        beta = self.inter.beta_seconds_per_byte * (1 + sign * min(0.5, self.relative_error))
        inter = Link(self.alpha(workers, case), beta)
        return Network(inter if self.is_uniform else self.intra, inter, "best" if self.is_best else "ring")

    def alpha(self, workers: int, case: Case) -> float:
        """The cost of a message: the smallest measured, or extrapolated from how it grew between measured sizes.

        The central value grows up to twice the measured workers, the pessimistic one without limit.
        """
        known = [(size, alpha) for size, alpha in self.alphas.items() if alpha > 0]
        if len(known) < 2:
            return self.inter.alpha_seconds
        if case == "optimistic":
            return min(alpha for _, alpha in known)
        growth = fit_growth(known)
        reach = workers if case == "pessimistic" else min(workers, 2 * max(self.alphas))
        return growth.intercept + growth.slope * reach

    def with_bandwidth(self, bits_per_second: float) -> Links:
        """The same links with another bandwidth between hosts."""
        link = Link(self.inter.alpha_seconds, 8 / bits_per_second)
        return replace(self, inter=link, intra=link if self.is_uniform else self.intra)


def fit_links(runs: Sequence[MeasuredRun], largest: MeasuredRun) -> Links:
    """Fits links to sweeps across hosts, and to sweeps within one host if there are both."""
    across = _timings([run for run in runs if run.num_hosts > 1])
    within = _timings([run for run in runs if run.num_hosts == 1])
    timings = across or within
    fitted = fit_ring(timings)
    sizes = sorted({timing.workers for timing in timings})
    return Links(
        inter=fitted.link,
        intra=fit_ring(within).link if across and within else fitted.link,
        workers_per_host=max(Counter(largest.hosts).values()),
        alphas={
            size: fit_ring([timing for timing in timings if timing.workers == size]).link.alpha_seconds
            for size in sizes
        },
        relative_error=fitted.relative_error / math.sqrt(len(timings)),
        is_best=largest.backend == "nccl",
    )


def _timings(runs: Sequence[MeasuredRun]) -> list[Timing]:
    return [
        Timing(run.world_size, entry.num_bytes, statistics.median(entry.seconds)) for run in runs for entry in run.sweep
    ]
