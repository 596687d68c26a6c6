"""The cost model of a job, fitted to an experiment: the time of a step at any number of workers."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from distrib.errors import JobError
from distrib.observe.format import percent
from distrib.scale.all_reduce import Network
from distrib.scale.fit import fit_compute
from distrib.scale.links import Case, Links, fit_links
from distrib.scale.measurement import MeasuredRun
from distrib.scale.result import ExperimentResult, MeasuredSize, Mode, StepSplit
from distrib.scale.step_cost import Workload, expected_straggling, step_cost

MAX_RESIDUAL = 0.15
"""A model that misses a measured size by more than this is not relied on."""


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
        links=fit_links(runs, largest),
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
