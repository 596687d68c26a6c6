"""The report as text for people and as data for programs."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from statistics import median
from typing import Any

from tests.bench.compare import Row

HEADER = ("what", "ours", "peer", "ratio (min–max)", "bound", "")


def as_text(rows: Sequence[Row], rounds: int) -> str:
    """A table of medians, and below it what went wrong."""
    lines = [HEADER, *(cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADER))]
    padded = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
    table = "\n".join(line.rstrip() for line in padded)
    problems = "".join(f"\n\n{row.what}: {row.verdict}: {row.problem}" for row in rows if row.problem)
    return f"{table}\n\nMedians over rounds ({rounds}) that take turns; a ratio is ours / peer of one round.{problems}"


def cells(row: Row) -> tuple[str, ...]:
    """One line of the table."""
    bound = "" if row.bound is None else f"{row.bound:.2f}"
    if row.problem or not row.ours:
        return row.what, "", "", "", bound, row.verdict
    spread = f"({min(row.judged):.2f}–{max(row.judged):.2f})"
    ratio = f"{median(row.judged):.2f} {spread}" if row.peer else spread
    peer = f"{median(row.peer):.2f}" if row.peer else "–"
    return row.what, f"{median(row.ours):.2f}", peer, ratio, bound, row.verdict


def as_data(rows: Iterable[Row], rounds: int) -> dict[str, Any]:
    """Every measurement, with what is worth knowing of the machine."""
    packages = {name: version(name) for name in ("torch", "ray", "distrib")}
    machine = {"cpus": len(os.sched_getaffinity(0)), "python": platform.python_version(), **packages}
    return {"rounds": rounds, "machine": machine, "rows": [{**asdict(row), "verdict": row.verdict} for row in rows]}
