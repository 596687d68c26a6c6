"""`distrib list`: the runs of a folder, and the jobs of a Ray cluster."""

from __future__ import annotations

import json
import shutil
import sys
import time
from typing import TYPE_CHECKING, Any

from distrib.cli.options import JobServerOption, JsonOption, RunsDirOption, runs_location, server_of
from distrib.errors import JobError

if TYPE_CHECKING:
    from distrib.runs.record import Run

HEADER = ["run", "status", "steps", "age", "took", "result"]
MIN_RESULT_WIDTH = 16
GAP = "  "


def list_(runs_dir: RunsDirOption = None, *, address: JobServerOption = None, as_json: JsonOption = False) -> None:
    """List the runs, newest first; with --address the jobs of that cluster too."""
    from distrib.observe.format import short_path
    from distrib.runs.find import find_runs
    from distrib.runs.storage.location import as_folder, is_url

    location = runs_location(runs_dir)
    runs = [_facts(run) for run in find_runs(location)]
    server = server_of(address)
    jobs = [] if server is None else server.list()
    if as_json:
        listed = [{"id": job.id, "run": job.run_id, "status": job.status, "message": job.message} for job in jobs]
        print(json.dumps({"runs": runs} if server is None else {"runs": runs, "jobs": listed}))
        return
    if runs:
        _print_table(runs)
    elif is_url(location) or as_folder(location).is_dir():
        print(f"No runs in {short_path(location if is_url(location) else as_folder(location))}.")
    else:
        print(f"No runs: there is no folder {short_path(as_folder(location))}.")
    if server is not None:
        print(f"\nRay jobs at {server.address}:" if jobs else f"\nNo Ray jobs at {server.address}.")
        for job in jobs:
            print(GAP.join([job.id.ljust(max(len(job.id) for job in jobs)), job.status.lower(), job.message]).rstrip())


def _facts(run: Run) -> dict[str, Any]:
    """What the list says of a run; of one that cannot be read, why."""
    try:
        done, planned = run.steps
        return {
            "id": run.id,
            "folder": str(run.place),
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
        return {"id": run.id, "folder": str(run.place), "status": "unreadable", "error": {"message": str(error)}}


def _print_table(runs: list[dict[str, Any]]) -> None:
    """The runs as columns; in a terminal the last one, the result, is cut where the line ends."""
    rows = [HEADER, *map(_cells, runs)]
    widths = [max(map(len, column)) for column in list(zip(*rows, strict=True))[:-1]]
    room = None
    if sys.stdout.isatty():
        room = max(MIN_RESULT_WIDTH, shutil.get_terminal_size().columns - sum(widths) - len(GAP) * len(widths))
    for row in rows:
        *cells, result = row
        aligned = [cell.ljust(width) for cell, width in zip(cells, widths, strict=True)]
        print(GAP.join([*aligned, _cut(result, room)]).rstrip())


def _cut(text: str, width: int | None) -> str:
    return text if width is None or len(text) <= width else text[: width - 1] + "…"


def _cells(run: dict[str, Any]) -> list[str]:
    from distrib.observe.format import age, clock

    if run["status"] == "unreadable":
        return [run["id"], run["status"], "", "", "", run["error"]["message"]]
    steps = str(run["steps"]) if run["total_steps"] is None else f"{run['steps']}/{run['total_steps']}"
    since = "" if run["started"] is None else age(time.time() - run["started"])
    took = "" if run["duration_seconds"] is None else clock(run["duration_seconds"])
    return [run["id"], run["status"], steps, since, took, _result(run)]


def _result(run: dict[str, Any]) -> str:
    """The metrics of a run, or the first line of why it failed."""
    from distrib.observe.format import values

    error = run["error"]
    if not error:
        return values(run["metrics"])
    text = ": ".join(str(error[part]) for part in ("type", "message") if error.get(part))
    return text.partition("\n")[0]
