"""From raw samples to what a size of an experiment says: a step's median, its parts, and how it compares."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any, Literal

from numpy.typing import NDArray

from distrib.scale.statistics import draw_medians, interval

Mode = Literal["strong", "weak"]
Record = dict[str, Any]

_FEW_STEPS = 20
_FEW_REPEATS = 3
_NOISY = 0.10
_BUSY = 0.90


def summarize(samples: Sequence[Record], workers: Sequence[int]) -> list[Record]:
    """The row of each size that was tried, the smallest first; the first that was measured is the base of the others.

    Args:
        samples: One for each run: `workers`, `repeat`, and a `measurement` or an `error`.
        workers: The sizes.
    """
    rows: list[Record] = []
    base: tuple[Record, NDArray[Any]] | None = None
    for size in sorted(workers):
        mine = [sample for sample in samples if sample["workers"] == size]
        measured = [sample["measurement"] for sample in mine if sample.get("measurement")]
        errors = [sample["error"] for sample in mine if sample.get("error")]
        if not measured:
            if errors:
                rows.append({"workers": size, "status": "failed", "error": errors[0]})
            continue
        row, medians = _row(size, measured)
        row["error"] = errors[0] if errors else None
        if base is None:
            base = (row, medians)
        _compare(row, medians, *base)
        rows.append(row)
    if sum(row["status"] == "measured" for row in rows) == 1:
        for row in rows:
            row.update({"speedup": None, "efficiency": None, "efficiency_interval": None})
    return rows


def full_steps(measurement: Record, *, is_synced: bool) -> list[Record]:
    """The steps of a whole global batch; that of an epoch's last step may be smaller."""
    full = measurement["global_batch_size"]
    return [step for step in measurement["steps"] if step["is_synced"] == is_synced and step["samples"] == full]


def _row(size: int, measured: Sequence[Record]) -> tuple[Record, NDArray[Any]]:
    synced = [[step["seconds"][0] for step in full_steps(found, is_synced=True)] for found in measured]
    if not any(synced):  # an epoch of a single, smaller step: take what there is
        synced = [[step["seconds"][0] for step in found["steps"] if step["is_synced"]] for found in measured]
    medians = draw_medians(synced)
    seconds = statistics.median(value for group in synced for value in group)
    low, high = interval(medians)
    batch = measured[0]["global_batch_size"]
    row: Record = {
        "workers": size,
        "status": "measured",
        "hosts": len(set(measured[0]["hosts"])),
        "global_batch_size": batch,
        "step_seconds": seconds,
        "interval": [low, high],
        "samples_per_second": batch / seconds,
        "split": _split(measured, size),
        "straggling": _straggling(measured),
        "peak_memory_bytes": max(found["peak_memory_bytes"] for found in measured),
        "cores_busy": statistics.median(found["cores_busy"] for found in measured),
        "num_steps": sum(map(len, synced)),
        "repeats": len(measured),
    }
    row["notes"] = _notes(row, measured[0])
    return row, medians


def _split(measured: Sequence[Record], size: int) -> dict[str, float]:
    """Median seconds of a step's parts; communication is what passes that synchronise take longer than others."""

    def median(part: str, *, is_synced: bool) -> float:
        values = [step[part][0] for found in measured for step in full_steps(found, is_synced=is_synced)]
        values = values or [step[part][0] for found in measured for step in found["steps"]]
        return float(statistics.median(values))

    whole = median("compute", is_synced=True)
    compute = median("compute", is_synced=False) if size > 1 else whole
    return {
        "data": median("data", is_synced=True),
        "compute": min(compute, whole),
        "communication": max(0.0, whole - compute),
        "optimizer": median("optimizer", is_synced=True),
    }


def _straggling(measured: Sequence[Record]) -> float:
    """By what fraction the slowest rank's forward and backward pass takes longer than the mean of all."""
    found = [
        step["compute"][1] / step["compute"][0] - 1
        for one in measured
        for step in full_steps(one, is_synced=False)
        if step["compute"][0] > 0
    ]
    return statistics.median(found) if found else 0.0


def _compare(row: Record, medians: NDArray[Any], base: Record, base_medians: NDArray[Any]) -> None:
    """Speed-up and efficiency against the smallest size, by samples a second."""
    work = row["global_batch_size"] / base["global_batch_size"]
    speedups = work * base_medians / medians
    ratio = row["workers"] / base["workers"]
    speedup = row["samples_per_second"] / base["samples_per_second"]
    is_base = row is base
    row["speedup"] = speedup
    row["efficiency"] = speedup / ratio
    row["efficiency_interval"] = [1.0, 1.0] if is_base else list(interval(speedups / ratio))


def _notes(row: Record, measurement: Record) -> list[str]:
    """What makes a size's figures less sure than they look."""
    notes = []
    if row["num_steps"] < _FEW_STEPS:
        notes.append(f"only {row['num_steps']} steps measured: ask for more with --steps")
    if row["repeats"] < _FEW_REPEATS:
        notes.append(f"{row['repeats']} of at least {_FEW_REPEATS} repeats: drift between runs cannot be seen")
    low, high = row["interval"]
    spread = (high - low) / row["step_seconds"]
    if spread > _NOISY:
        notes.append(f"noisy: the 95 % interval is {spread:.0%} of a step; use a quieter machine or more --repeats")
    if measurement["device"] == "cpu" and row["cores_busy"] > _BUSY:
        notes.append(
            f"the cores of a host were {row['cores_busy']:.0%} busy: they bound the step, whatever its parts are called"
        )
    needed = len(measurement["steps"])
    if measurement["steps_per_epoch"] < needed:
        per_epoch = measurement["steps_per_epoch"]
        notes.append(f"an epoch has {per_epoch} steps, fewer than asked for: measured over several epochs")
    return notes
