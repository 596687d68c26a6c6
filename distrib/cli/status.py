"""`distrib status`: shows the status of a run."""

from __future__ import annotations

import json

from distrib.cli.options import JobServerOption, JsonOption, RunArgument, RunsDirOption, find_job, find_run, no_run


def status(
    run: RunArgument, *, runs_dir: RunsDirOption = None, address: JobServerOption = None, as_json: JsonOption = False
) -> None:
    """Show the status of a run and of its Ray job."""
    from distrib.observe.summary import rank_lines, summarize, summary_lines

    found, on_cluster = find_run(run, runs_dir), find_job(run, address)
    if found is None and on_cluster is None:
        raise no_run(run)
    job = None if on_cluster is None else on_cluster[1]
    known = {} if found is None else summarize(found, None)
    if as_json:
        print(json.dumps({**known, "job": None if job is None else {"id": job.id, "status": job.status}}))
        return
    if found is not None:
        print("\n".join([*summary_lines(found), *rank_lines(found)]))
    if job is not None:
        print(f"  Ray job     {job.id}: {job.status}" + (f", {job.message}" if job.message else ""))
