"""Runs against each other: the fields of their specs, their origins and their results that differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TextIO

from distrib.observe.format import duration, number, plural
from distrib.observe.spec_fields import differing_fields, spec_fields
from distrib.observe.summary import read_state

if TYPE_CHECKING:
    from distrib.runs.run import Run

_SECONDS = ("duration_seconds", "first_step_seconds")


def compare(runs: Sequence[Run]) -> dict[str, Any]:
    """What differs between runs, as `distrib compare --json` prints it: each value is a list with an item for each run.

    `notes` has what to know about damaged events, by the run's id.
    """
    specs = [spec_fields(run) for run in runs]
    results, notes = zip(*map(_result, runs), strict=True)
    origins = [_origin(run) for run in runs]
    names = dict.fromkeys(name for result in results for name in result)
    return {
        "runs": [run.id for run in runs],
        "spec": {field: [spec.get(field) for spec in specs] for field in differing_fields(specs)},
        "provenance": {name: [origin.get(name) for origin in origins] for name in differing_fields(origins)},
        "result": {name: [result.get(name) for result in results] for name in names},
        "notes": {run.id: note for run, note in zip(runs, notes, strict=True) if note is not None},
    }


def _result(run: Run) -> tuple[dict[str, Any], str | None]:
    """The result of a run by name (status, steps, metrics, speed and times), and a note about damaged events."""
    state, speed, note = read_state(run)
    result = {
        "status": run.status,
        "steps": state.step,
        **{name: value for name, value in run.metrics.items() if not isinstance(value, dict)},
        "samples_per_second": speed,
        "duration_seconds": run.duration_seconds,
        "first_step_seconds": run.record.get("first_step_seconds"),
        "restarts": state.num_restarts,
    }
    return result, note


def print_comparison(comparison: dict[str, Any], stream: TextIO) -> None:
    """Prints a comparison as a table for people."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("", *comparison["runs"], *(["change"] if len(comparison["runs"]) == 2 else [])):
        table.add_column(Text(title), overflow="fold", justify="right" if title == "change" else "left")
    for part in ("result", "spec", "provenance"):
        for name, values in comparison[part].items():
            cells = [name, *(show_value(name, value) for value in values), change(name, values)]
            table.add_row(*map(Text, cells[: len(table.columns)]))
        table.add_section()
    Console(file=stream, highlight=False, width=None if stream.isatty() else 160).print(table)
    if not comparison["spec"]:
        print("The jobs have the same spec.", file=stream)
    for run, note in comparison["notes"].items():
        print(f"{run}: {note}", file=stream)


def show_value(name: str, value: Any) -> str:
    """A value of a comparison in a few characters."""
    if value is None:
        return "–"
    if name in _SECONDS:
        return duration(value)
    if isinstance(value, float):
        return number(value)
    text = str(value)
    return text if len(text) <= 40 else text[:39] + "…"


def change(name: str, values: Sequence[Any]) -> str:
    """How two numbers differ, in percent of the first."""
    if len(values) != 2 or not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return ""
    first, second = values
    if not first or first == second or name in ("restarts",):
        return ""
    return f"{(second - first) / abs(first):+.1%}"


def _origin(run: Run) -> dict[str, Any]:
    """What a run was made of, in few fields."""
    provenance = run.record.get("provenance") or {}
    request, schedule = run.record.get("request") or {}, run.record.get("schedule") or {}
    git = provenance.get("git") or {}
    sources = provenance.get("sources") or {}
    commit = str(git.get("commit", ""))[:10] + (" with changes" if git.get("dirty") else "")
    names = ("host", "python", "torch", "ray", "distrib")
    return {
        "commit": commit or None,
        "source files": plural(len(sources), "file") + f", {_digest(sources)}" if sources else None,
        **{name: provenance.get(name) for name in names},
        "launcher": request.get("launcher"),
        "device": request.get("device"),
        "workers": schedule.get("world_size"),
    }


def _digest(sources: dict[str, Any]) -> str:
    import hashlib
    import json

    return hashlib.sha256(json.dumps(sources, sort_keys=True).encode()).hexdigest()[:8]
