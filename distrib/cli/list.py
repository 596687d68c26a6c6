"""`distrib list`: the runs of a folder or bucket, and the jobs of a Ray cluster."""

from __future__ import annotations

import json
import shutil
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from distrib.cli.options import JobServerOption, JsonOption, RunsDirOption, runs_location, server_of
from distrib.errors import JobError

if TYPE_CHECKING:
    from distrib.observe.terminal.runs_table import Row, Selection

STATUSES = ("running", "finished", "failed", "stopped", "unreadable")


def list_(
    runs_dir: RunsDirOption = None,
    *,
    status: Annotated[
        list[str] | None,
        typer.Option("--status", metavar="|".join(STATUSES), help="Only runs with this status; repeatable."),
    ] = None,
    job: Annotated[str | None, typer.Option("--job", metavar="NAME", help="Only runs of this job.")] = None,
    metric: Annotated[
        str | None,
        typer.Option("--metric", metavar="NAME[>=VALUE]", help="Only runs with this metric, or within this bound."),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="AGE|DATE", help="Only runs started since '2 days' ago or a date."),
    ] = None,
    sort: Annotated[
        str,
        typer.Option(
            "--sort", metavar="KEY", help="started, took, steps, status, job, run or a metric; -KEY reverses."
        ),
    ] = "started",
    limit: Annotated[int | None, typer.Option("--limit", min=1, metavar="N", help="Maximum number of runs.")] = None,
    address: JobServerOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the runs, newest first; with --address the jobs of that cluster too."""
    from distrib.observe.terminal.runs_table import Selection, parse_since

    for name in status or ():
        if name not in STATUSES:
            raise JobError(f"{name!r} is not a status; use one of {', '.join(STATUSES)}", field="--status")
    try:
        start = None if since is None else parse_since(since, time.time())
    except ValueError as error:
        raise JobError(str(error), field="--since") from None
    rows, fields, empty = _select(runs_dir, Selection(status or (), job, start, metric, sort, limit))
    server = server_of(address)
    jobs = [] if server is None else server.list()
    if as_json:
        listed = [{"id": job.id, "run": job.run_id, "status": job.status, "message": job.message} for job in jobs]
        print(json.dumps({"runs": rows} if server is None else {"runs": rows, "jobs": listed}))
        return
    _print_rows(rows, fields, runs_dir, empty)
    if server is not None:
        print(f"\nRay jobs at {server.address}:" if jobs else f"\nNo Ray jobs at {server.address}.")
        for ray_job in jobs:
            identifier = ray_job.id.ljust(max(len(each.id) for each in jobs))
            print("  ".join([identifier, ray_job.status.lower(), ray_job.message]).rstrip())


def _select(runs_dir: str | None, selection: Selection) -> tuple[list[Row], list[str], str | None]:
    """The rows asked for, the fields in which their specs differ, and why no run is chosen if there are any."""
    from distrib.observe.terminal.runs_table import add_spec_differences, row_of
    from distrib.runs.find import find_runs, for_each

    runs = find_runs(runs_location(runs_dir))
    known = for_each(runs, row_of)
    try:
        rows = selection.apply(known)
    except ValueError as error:
        raise JobError(str(error), field="--metric") from None
    return rows, add_spec_differences(rows, {str(run.location): run for run in runs}), _why_none(known, selection)


def _why_none(known: list[Row], selection: Selection) -> str | None:
    """Why the selection chooses none of the known runs; None if there are none."""
    if not known:
        return None
    missing = selection.missing_metric(known)
    return "no such runs" if missing is None else missing


def _print_rows(rows: list[Row], fields: list[str], runs_dir: str | None, empty: str | None) -> None:
    from distrib.observe.format import short_path
    from distrib.observe.terminal.runs_table import table_lines
    from distrib.runs.storage.open import open_storage

    if rows:
        print(*table_lines(rows, fields, shutil.get_terminal_size().columns if sys.stdout.isatty() else None), sep="\n")
        return
    storage = open_storage(runs_location(runs_dir))
    shown = short_path(storage.location)
    if empty is not None:
        print(f"{empty[0].upper()}{empty[1:]} in {shown}.")
    elif storage.is_there:
        print(f"No runs in {shown}.")
    else:
        print(f"No runs: there is no folder {shown}.")
