"""An experiment as tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from distrib.observe.format import num_bytes, number, plural
from distrib.scale.results import Record

_PARTS = ("data", "compute", "communication", "optimizer")
_HEADER = ("workers", "batch", "seconds/step", "95 % interval", "samples/s", "speed-up", "efficiency", "memory")


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines, all columns aligned to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def result_lines(result: Record) -> list[str]:
    """An experiment's sizes, the parts of their steps, and what to know of both."""
    measured = [row for row in result["sizes"] if row["status"] == "measured"]
    lines = aligned([_HEADER, *map(_cells, measured)]) if measured else []
    if measured:
        header = ("workers", *_PARTS, "(seconds of a step)", "cores busy")
        parts = [
            (str(row["workers"]), *(number(row["split"][part]) for part in _PARTS), "", percent(row["cores_busy"]))
            for row in measured
        ]
        lines += ["", *aligned([header, *parts])]
    notes = [f"{plural(row['workers'], 'worker')}: failed: {row['error']}" for row in result["sizes"] if row["error"]]
    notes += [f"{plural(row['workers'], 'worker')}: {note}" for row in measured for note in row["notes"]]
    if len(measured) == 1:
        notes.append("a single size: no speed-up or efficiency; measure at least two, as in --workers 1,2")
    return [*lines, *([""] if notes and lines else []), *notes]


def percent(share: float | None) -> str:
    """A share of one, as people read it."""
    return "–" if share is None else f"{100 * share:.1f} %"


def _cells(row: Record) -> tuple[str, ...]:
    low, high = row["interval"]
    return (
        str(row["workers"]),
        f"{row['global_batch_size']:,}",
        number(row["step_seconds"]),
        f"{number(low)} … {number(high)}",
        number(row["samples_per_second"]),
        "–" if row["speedup"] is None else f"{row['speedup']:.2f}",
        percent(row["efficiency"]),
        num_bytes(row["peak_memory_bytes"]),
    )


def prediction_lines(predictions: Sequence[Record], notes: Sequence[str], residuals: dict[int, float]) -> list[str]:
    """Predictions, what would help, how well the model meets what was measured, and what it assumes."""
    header = ("workers", "batch", "seconds/step", "range", "samples/s", "efficiency", "range", "limited by")
    rows = [
        (
            str(row["workers"]),
            f"{row['global_batch_size']:,}",
            number(row["step_seconds"]),
            " … ".join(map(number, row["range"])),
            number(row["samples_per_second"]),
            percent(row["efficiency"]),
            " … ".join(map(percent, row["efficiency_range"])),
            row["limit"],
        )
        for row in predictions
    ]
    lines = [*aligned([header, *rows]), ""]
    for row in predictions:
        gains = ", ".join(f"{name} {gain:.2f}×" for name, gain in row["steps_faster_with"].items())
        batch = row["batch_for_90_percent"]
        needs = "no batch reaches 90 %" if batch is None else f"90 % from a global batch of {batch:,}"
        lines.append(f"{plural(row['workers'], 'worker')}: {needs}; samples/s with {gains}")
    met = ", ".join(f"{workers}: {residual:+.1%}" for workers, residual in residuals.items())
    return [*lines, "", f"The model against what was measured, by workers: {met}", *(f"Assumed: {n}" for n in notes)]


def comparison_lines(first: Record, second: Record, names: tuple[str, str]) -> list[str]:
    """Two experiments side by side, size by size."""
    tables = [{row["workers"]: row for row in one["sizes"] if row["status"] == "measured"} for one in (first, second)]
    header = ("workers", *(f"s/step {name}" for name in names), "times as fast", *(f"efficiency {n}" for n in names))
    rows = []
    for workers in sorted(tables[0].keys() | tables[1].keys()):
        left, right = (table.get(workers) for table in tables)
        faster = "–"
        if left and right:
            faster = f"{right['samples_per_second'] / left['samples_per_second']:.2f}"
            if left["interval"][0] <= right["interval"][1] and right["interval"][0] <= left["interval"][1]:
                faster += " (intervals overlap)"
        cells = [number(row["step_seconds"]) if row else "–" for row in (left, right)]
        shares = [percent(row["efficiency"]) if row else "–" for row in (left, right)]
        rows.append((str(workers), *cells, faster, *shares))
    notes = []
    for field in ("job", "mode", "launcher"):
        if first.get(field) != second.get(field):
            notes.append(f"they differ in {field}: {first.get(field)}, {second.get(field)}")
    return [*aligned([header, *rows]), *notes]
