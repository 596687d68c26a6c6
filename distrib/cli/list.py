"""`distrib list`: the runs of a folder."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

from distrib.cli.options import JsonOption, RunsDirOption, runs_folder
from distrib.errors import JobError

if TYPE_CHECKING:
    from distrib.runs.record import Run

COLUMNS = ("run", "status", "steps", "result", "started", "took")
MAX_RESULT_LENGTH = 60


def list_(runs_dir: RunsDirOption = None, *, as_json: JsonOption = False) -> None:
    """List the runs, newest first."""
    from distrib.observe.format import place
    from distrib.runs.record import list_runs

    folder = runs_folder(runs_dir)
    runs = [_facts(run) for run in list_runs(folder)]
    if as_json:
        print(json.dumps({"runs": runs}))
    elif runs:
        _print_table(runs)
    else:
        print(f"No runs in {place(folder)}." if folder.is_dir() else f"No runs: there is no folder {place(folder)}.")


def _facts(run: Run) -> dict[str, Any]:
    """What the list says of a run; of one that cannot be read, why."""
    try:
        done, planned = run.steps
        return {
            "id": run.id,
            "folder": str(run.folder),
            "name": run.record.get("name"),
            "status": run.status,
            "steps": done,
            "total_steps": planned,
            "metrics": run.metrics,
            "started": run.record.get("started"),
            "duration_seconds": run.duration_seconds,
            "error": run.error,
        }
    except JobError as error:
        return {"id": run.id, "folder": str(run.folder), "status": "unreadable", "error": {"message": str(error)}}


def _print_table(runs: list[dict[str, Any]]) -> None:
    """The runs as columns; in a terminal what is too long gives way to what is not."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    width = None if sys.stdout.isatty() else 1000
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in COLUMNS:
        flexible = column == "result"
        table.add_column(
            column, no_wrap=True, overflow="ellipsis" if flexible else "fold", min_width=9 if flexible else None
        )
    for run in runs:
        table.add_row(*(Text(cell) for cell in _cells(run)))
    Console(width=width, highlight=False).print(table)


def _cells(run: dict[str, Any]) -> list[str]:
    from distrib.observe.format import ago, duration

    if run["status"] == "unreadable":
        return [run["id"], run["status"], "", str(run["error"]["message"]), "", ""]
    planned = "" if run["total_steps"] is None else f"/{run['total_steps']}"
    started = "" if run["started"] is None else ago(time.time() - run["started"])
    took = "" if run["duration_seconds"] is None else duration(run["duration_seconds"])
    return [run["id"], run["status"], f"{run['steps']}{planned}", _result(run), started, took]


def _result(run: dict[str, Any]) -> str:
    """The metrics of a run, or in short why it failed."""
    from distrib.observe.format import values

    error = run["error"]
    if not error:
        return values(run["metrics"])
    text = ": ".join(str(error[part]) for part in ("type", "message") if error.get(part))
    line = text.splitlines()[0] if text else ""
    return line if len(line) <= MAX_RESULT_LENGTH else line[: MAX_RESULT_LENGTH - 1] + "…"
