"""An experiment and its predictions as tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from distrib.observe.format import num_bytes, number, percent, plural
from distrib.scale.model import CostModel
from distrib.scale.prediction import Prediction
from distrib.scale.result import PARTS, ExperimentResult, MeasuredSize

_HEADER = ("workers", "batch", "seconds/step", "95 % interval", "samples/s", "speed-up", "efficiency", "memory")


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines with right-aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def result_lines(result: ExperimentResult) -> list[str]:
    """The measured sizes, the parts of their steps, and notes on both."""
    rows = result.measured
    lines: list[str] = []
    if rows:
        lines += aligned([_HEADER, *map(_cells, rows)])
        lines += ["", *aligned([("workers", *PARTS, "(seconds of a step)", "cores busy"), *map(_part_cells, rows)])]
    notes = result_notes(result)
    return [*lines, *([""] if notes and lines else []), *notes]


def result_notes(result: ExperimentResult) -> list[str]:
    """Failures, and what makes the figures less certain than they look."""
    notes = [f"{plural(row.workers, 'worker')}: failed: {row.error}" for row in result.sizes if row.error]
    notes += [f"{plural(row.workers, 'worker')}: {note}" for row in result.measured for note in row.notes]
    if len(result.measured) == 1:
        notes.append("one size has no speed-up or efficiency; measure at least two")
    return notes


def _cells(row: MeasuredSize) -> tuple[str, ...]:
    return (
        str(row.workers),
        f"{row.global_batch_size:,}",
        number(row.step_seconds),
        " … ".join(map(number, row.interval)),
        number(row.samples_per_second),
        "–" if row.speedup is None else f"{row.speedup:.2f}",
        percent(row.efficiency),
        num_bytes(row.peak_memory_bytes),
    )


def _part_cells(row: MeasuredSize) -> tuple[str, ...]:
    return (str(row.workers), *(number(getattr(row.split, part)) for part in PARTS), "", percent(row.cores_busy))


def prediction_lines(predictions: Sequence[Prediction], model: CostModel) -> list[str]:
    """A warning if the model is unreliable, the predictions, what would help, and how well the model fits."""
    header = ("workers", "batch", "seconds/step", "range", "samples/s", "efficiency", "range", "limited by")
    warning = [] if model.warning is None else [model.warning, ""]
    lines = [*warning, *aligned([header, *map(_prediction_cells, predictions)]), ""]
    for row in predictions:
        gains = ", ".join(f"{name} {gain:.2f}×" for name, gain in row.steps_faster_with.items())
        lines.append(f"{plural(row.workers, 'worker')}: {_goal(row, model)}samples/s with {gains}")
    return [*lines, "", fit_line(model), *(f"Assumed: {assumption}" for assumption in model.assumptions)]


def _goal(row: Prediction, model: CostModel) -> str:
    if model.warning is not None:
        return ""
    batch = row.batch_for_90_percent
    return "no batch reaches 90 %; " if batch is None else f"90 % from a global batch of {batch:,}; "


def fit_line(model: CostModel) -> str:
    """How far the model is from each measured size."""
    residuals = ", ".join(f"{100 * residual:+.1f} % at {workers:,}" for workers, residual in model.residuals.items())
    return f"Model compared with measurement, by workers: {residuals}"


def _prediction_cells(row: Prediction) -> tuple[str, ...]:
    return (
        str(row.workers),
        f"{row.global_batch_size:,}",
        number(row.step_seconds),
        " … ".join(map(number, row.range)),
        number(row.samples_per_second),
        percent(row.efficiency),
        " … ".join(map(percent, row.efficiency_range)),
        row.limit,
    )


def comparison_lines(first: ExperimentResult, second: ExperimentResult, names: tuple[str, str]) -> list[str]:
    """Two experiments side by side, size by size."""
    tables = [{row.workers: row for row in result.measured} for result in (first, second)]
    header = ("workers", *(f"s/step {name}" for name in names), "times as fast", *(f"efficiency {n}" for n in names))
    rows = []
    for workers in sorted(tables[0].keys() | tables[1].keys()):
        left, right = (table.get(workers) for table in tables)
        seconds = [number(row.step_seconds) if row else "–" for row in (left, right)]
        shares = [percent(row.efficiency) if row else "–" for row in (left, right)]
        rows.append((str(workers), *seconds, _ratio(left, right), *shares))
    notes = [
        f"they differ in {field}: {getattr(first, field)}, {getattr(second, field)}"
        for field in ("job", "mode", "launcher")
        if getattr(first, field) != getattr(second, field)
    ]
    return [*aligned([header, *rows]), *notes]


def _ratio(left: MeasuredSize | None, right: MeasuredSize | None) -> str:
    if left is None or right is None:
        return "–"
    faster = f"{right.samples_per_second / left.samples_per_second:.2f}"
    overlaps = left.interval[0] <= right.interval[1] and right.interval[0] <= left.interval[1]
    return f"{faster} (intervals overlap)" if overlaps else faster
