"""From raw samples to a row for each size: the median step, its parts, and how it compares with the smallest size."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from numpy.typing import NDArray

from distrib.observe.format import percent
from distrib.scale.measurement import MeasuredRun
from distrib.scale.result import CORE_LIMIT, FailedSize, MeasuredSize, Sample, SizeResult, StepSplit
from distrib.scale.statistics import bootstrap_medians, interval

Part = Literal["data", "compute", "optimizer"]

LIMIT_NAMES = {
    "communication": "communication",
    "compute": "compute that does not scale",
    "data": "waiting for data",
    "optimizer": "the optimizer",
}
"""What limits a step, by the part of it."""
NO_LIMIT = "nothing but compute"
SMALL_LOSS = 0.02
"""A loss below this share of a step does not count as a limit."""
_FEW_STEPS = 20
_FEW_REPEATS = 3
_NOISY = 0.10
_BUSY = 0.90


def summarize(samples: Sequence[Sample], workers: Sequence[int]) -> tuple[SizeResult, ...]:
    """The row of each size that was tried, ascending; the smallest measured size is the baseline of the others."""
    rows: list[SizeResult] = []
    base: tuple[MeasuredSize, NDArray[Any]] | None = None
    for size in sorted(workers):
        tried = [sample for sample in samples if sample.workers == size]
        runs = [sample.measurement for sample in tried if sample.measurement is not None]
        errors = [sample.error for sample in tried if sample.error is not None]
        if runs:
            row, medians = _row(size, runs)
            base = base or (row, medians)
            rows.append(replace(_compare(row, medians, *base), error=errors[0] if errors else None))
        elif errors:
            rows.append(FailedSize(workers=size, error=errors[0]))
    measured = [row for row in rows if isinstance(row, MeasuredSize)]
    if len(measured) == 1:
        alone = replace(measured[0], speedup=None, efficiency=None, efficiency_interval=None)
        rows = [alone if row is measured[0] else row for row in rows]
    return tuple(rows)


def _row(size: int, runs: Sequence[MeasuredRun]) -> tuple[MeasuredSize, NDArray[Any]]:
    """A size on its own, and bootstrap medians of its step."""
    synced = [[step.seconds.mean for step in run.full_steps(is_synced=True)] for run in runs]
    if not any(synced):  # each epoch is a single, smaller step: use those
        synced = [[step.seconds.mean for step in run.steps if step.is_synced] for run in runs]
    medians = bootstrap_medians(synced)
    seconds = statistics.median(value for values in synced for value in values)
    batch = runs[0].global_batch_size
    row = MeasuredSize(
        workers=size,
        hosts=runs[0].num_hosts,
        global_batch_size=batch,
        step_seconds=seconds,
        interval=interval(medians),
        samples_per_second=batch / seconds,
        split=_split(runs, size),
        straggling=_straggling(runs),
        peak_memory_bytes=max(run.peak_memory_bytes for run in runs),
        cores_busy=statistics.median(run.cores_busy for run in runs),
        num_steps=sum(map(len, synced)),
        repeats=len(runs),
    )
    limit = _core_limit(row.cores_busy) if runs[0].device == "cpu" and row.cores_busy > _BUSY else None
    row = replace(row, limit=limit)
    return replace(row, notes=tuple(_notes(row, runs[0]))), medians


def _split(runs: Sequence[MeasuredRun], size: int) -> StepSplit:
    """Median seconds of a step's parts; communication is the extra time of passes that synchronize gradients."""

    def median(part: Part, *, is_synced: bool) -> float:
        steps = [step for run in runs for step in run.full_steps(is_synced=is_synced)]
        steps = steps or [step for run in runs for step in run.steps]
        return float(statistics.median(getattr(step, part).mean for step in steps))

    whole = median("compute", is_synced=True)
    compute = median("compute", is_synced=False) if size > 1 else whole
    return StepSplit(
        data=median("data", is_synced=True),
        compute=min(compute, whole),
        communication=max(0.0, whole - compute),
        optimizer=median("optimizer", is_synced=True),
    )


def _straggling(runs: Sequence[MeasuredRun]) -> float:
    """The fraction by which the slowest rank's forward and backward pass exceeds the mean."""
    excesses = [
        step.compute.max / step.compute.mean - 1
        for run in runs
        for step in run.full_steps(is_synced=False)
        if step.compute.mean > 0
    ]
    return statistics.median(excesses) if excesses else 0.0


def _compare(row: MeasuredSize, medians: NDArray[Any], base: MeasuredSize, base_medians: NDArray[Any]) -> MeasuredSize:
    """The row with its speed-up, efficiency and limit, relative to the smallest size."""
    if row is base:
        return replace(row, speedup=1.0, efficiency=1.0, efficiency_interval=(1.0, 1.0))
    ratio = row.workers / base.workers
    speedup = row.samples_per_second / base.samples_per_second
    speedups = row.global_batch_size / base.global_batch_size * base_medians / medians
    return replace(
        row,
        speedup=speedup,
        efficiency=speedup / ratio,
        efficiency_interval=interval(speedups / ratio),
        limit=row.limit or _limit(row, base),
    )


def _core_limit(busy: float) -> str:
    return f"{CORE_LIMIT} ({percent(busy, digits=0)} busy)"


def _limit(row: MeasuredSize, base: MeasuredSize) -> str:
    """What costs the most, compared with a step that scales perfectly from the smallest size."""
    share = row.samples_per_worker / base.samples_per_worker
    losses = {part: getattr(row.split, part) - share * getattr(base.split, part) for part in LIMIT_NAMES}
    worst = max(losses, key=lambda part: losses[part])
    return NO_LIMIT if losses[worst] < SMALL_LOSS * row.step_seconds else LIMIT_NAMES[worst]


def _notes(row: MeasuredSize, run: MeasuredRun) -> list[str]:
    """What makes a size's figures less certain than they look."""
    notes = []
    if row.num_steps < _FEW_STEPS:
        notes.append(f"only {row.num_steps} steps measured; measure more steps")
    if row.repeats < _FEW_REPEATS:
        notes.append(f"fewer than {_FEW_REPEATS} repeats ({row.repeats}): drift between runs is not visible")
    spread = (row.interval[1] - row.interval[0]) / row.step_seconds
    if spread > _NOISY:
        share = percent(spread, digits=0)
        notes.append(f"noisy: the 95 % interval spans {share} of a step; use a quieter machine or more repeats")
    if row.is_core_bound:
        share = percent(row.cores_busy, digits=0)
        notes.append(f"the cores of a host are {share} busy: they limit the step, whichever part the time counts under")
    if run.steps_per_epoch < len(run.steps):
        notes.append(f"an epoch has only {run.steps_per_epoch} steps: the measurement spans several epochs")
    return notes
