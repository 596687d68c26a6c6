"""The cost model of a job, fitted to an experiment: the time of a step at any number of workers."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from distrib.errors import JobError
from distrib.observe.format import percent
from distrib.scale.all_reduce import Link, Network, Topology
from distrib.scale.fit import Timing, fit_compute, fit_growth, fit_ring
from distrib.scale.measurement import MeasuredRun
from distrib.scale.result import ExperimentResult, MeasuredSize, Mode, StepSplit
from distrib.scale.step_cost import Workload, expected_straggling, step_cost

Case = Literal["optimistic", "central", "pessimistic"]
MAX_RESIDUAL = 0.15
"""A model that misses a measured size by more than this is not relied on."""


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


@dataclass(frozen=True)
class Baseline:
    """The smallest measured size, to which efficiency is relative.

    Attributes:
        mode: How the global batch depends on the number of workers.
        workers: Its number of workers.
        global_batch_size: Its samples per step.
        samples_per_second: Of one of its workers.
        accumulate: Micro-batches per step.
    """

    mode: Mode
    workers: int
    global_batch_size: int
    samples_per_second: float
    accumulate: int

    def batch_at(self, workers: int) -> float:
        """The global batch size at a number of workers."""
        return self.global_batch_size * (workers / self.workers if self.mode == "weak" else 1)

    def samples_per_worker(self, workers: int) -> float:
        """The samples of one worker's micro-batch."""
        return self.batch_at(workers) / workers / self.accumulate


@dataclass(frozen=True)
class CostModel:
    """A job's cost model.

    Attributes:
        workload: The work of one worker in a step.
        links: The links between workers.
        baseline: The smallest measured size.
        deviation: Relative standard deviation of the workers' compute times.
        residuals: Modeled by measured seconds, minus 1, for each measured size.
        assumptions: What the model takes for granted, as sentences.
    """

    workload: Workload
    links: Links
    baseline: Baseline
    deviation: float
    residuals: Mapping[int, float]
    assumptions: tuple[str, ...]

    @property
    def largest_residual(self) -> float:
        """How far the model misses the measured sizes at most."""
        return max((abs(residual) for residual in self.residuals.values()), default=0.0)

    @property
    def warning(self) -> str | None:
        """Why predictions should not be relied on, if the model does not fit the measured sizes."""
        if self.largest_residual <= MAX_RESIDUAL:
            return None
        return (
            f"Unreliable: the model misses the measured sizes by up to {percent(self.largest_residual, digits=0)}. "
            "Do not plan with these predictions; measure on a quieter machine, or more sizes."
        )

    def cost(
        self,
        workers: int,
        case: Case = "central",
        *,
        network: Network | None = None,
        samples_per_worker: float | None = None,
        accumulate: int | None = None,
        compression: float = 1.0,
    ) -> StepSplit:
        """The cost of a step at a number of workers; arguments that are None take the job's value."""
        share = {"optimistic": 0.0, "central": 0.5, "pessimistic": 1.0}[case]
        if samples_per_worker is None:
            samples_per_worker = self.baseline.samples_per_worker(workers)
        return step_cost(
            self.workload,
            network or self.links.network(workers, case),
            self.links.topology(workers),
            samples_per_worker,
            accumulate=accumulate or self.baseline.accumulate,
            compression=compression,
            straggling=share * expected_straggling(self.deviation, workers),
        )

    def with_bandwidth(self, bits_per_second: float) -> CostModel:
        """The model with another link bandwidth; the cost per message stays as measured."""
        note = f"links of {bits_per_second / 1e9:g} Gbit/s, fully used, with the cost per message as measured"
        return replace(self, links=self.links.with_bandwidth(bits_per_second), assumptions=(*self.assumptions, note))


def fit_model(result: ExperimentResult) -> CostModel:
    """Fits the cost model to an experiment.

    Raises:
        JobError: Fewer than two sizes were measured.
    """
    rows = result.measured
    if len(rows) < 2:
        raise JobError("a prediction needs at least two measured sizes; measure more, as in `workers` 1,2,4")
    runs = [sample.measurement for sample in result.samples if sample.measurement is not None]
    largest = next(run for run in runs if run.world_size == rows[-1].workers)
    deviations = [row.straggling / expected_straggling(1.0, row.workers) for row in rows if row.workers > 1]
    model = CostModel(
        workload=_fit_workload(rows, largest),
        links=_fit_links(runs, largest),
        baseline=Baseline(
            result.mode,
            rows[0].workers,
            rows[0].global_batch_size,
            rows[0].samples_per_second / rows[0].workers,
            largest.accumulate,
        ),
        deviation=statistics.median(deviations),
        residuals={},
        assumptions=tuple(_assumptions(rows, result.mode)),
    )
    residuals = {row.workers: model.cost(row.workers).seconds / row.step_seconds - 1 for row in rows}
    return replace(model, residuals=residuals)


def _fit_workload(rows: Sequence[MeasuredSize], largest: MeasuredRun) -> Workload:
    accumulate = largest.accumulate
    compute = fit_compute([(row.samples_per_worker / accumulate, row.split.compute / accumulate) for row in rows])
    return Workload(
        data_seconds=statistics.median(row.split.data for row in rows) / accumulate,
        fixed_seconds=compute.intercept,
        seconds_per_sample=compute.slope,
        optimizer_seconds=statistics.median(row.split.optimizer for row in rows),
        buckets=largest.buckets,
    )


def _fit_links(runs: Sequence[MeasuredRun], largest: MeasuredRun) -> Links:
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


def _assumptions(rows: Sequence[MeasuredSize], mode: Mode) -> list[str]:
    hosts = max(row.hosts for row in rows)
    where = "between the measured hosts" if hosts > 1 else "within the one measured host"
    notes = [
        f"every link is like those {where}, and every host has as many workers",
        "the range: at best the cost per message stays constant; at worst it grows as it did between measured sizes, "
        "the slowest worker is as late as the measured variance predicts, and the model is as wrong as at the measured "
        "sizes",
    ]
    if mode == "strong" and len({row.workers for row in rows}) < 3:
        notes.append("compute at other batch sizes follows a line through two points")
    busy = [f"{row.workers:,}" for row in rows if row.is_core_bound]
    if busy:
        notes.append(f"the measured times include waiting for CPU cores (busy at: {', '.join(busy)} workers)")
    return notes
