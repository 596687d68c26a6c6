"""`distrib stop`: stops a run after a checkpoint."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

from distrib.cli.options import JobServerOption, RunArgument, RunsDirOption, find_job, find_run, no_run
from distrib.errors import LaunchError

if TYPE_CHECKING:
    from distrib.runs.run import Run

_POLL_SECONDS = 0.2
_MARGIN_SECONDS = 30.0


def stop(run: RunArgument, *, runs_dir: RunsDirOption = None, address: JobServerOption = None) -> None:
    """Stop a run; it saves a checkpoint first; the same command with --run-id resumes."""
    on_cluster = find_job(run, address)
    if on_cluster is not None:
        server, job = on_cluster
        if job.is_over:
            print(f"{run} is not running: Ray says {job.status}")
            return
        server.stop(job.id)
        job = server.wait(job.id, _grace(find_run(run, runs_dir)))
        print(f"{run}: {job.status.lower()}")
        return
    found = find_run(run, runs_dir)
    if found is None:
        raise no_run(run)
    _stop_here(found)


def _stop_here(run: Run) -> None:
    """Signals the launcher of a run, where it is a process of this machine, and waits until it has ended."""
    from distrib.runs.owner import is_dead, is_of_this_machine

    owner = run.record.get("owner")
    if run.status != "running" or owner is None:
        print(f"{run.id} is not running: {run.status}")
        return
    if not is_of_this_machine(owner):
        raise LaunchError(
            f"{run.id} runs on {owner.get('host')}; stop it there, or name the cluster that runs it: --address"
        )
    os.kill(int(owner["pid"]), signal.SIGINT)
    deadline = time.monotonic() + _grace(run)
    while not is_dead(owner) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    run.refresh()
    print(f"{run.id}: {run.status}")


def _grace(run: Run | None) -> float:
    """Seconds that a stop may take."""
    request = {} if run is None else run.record.get("request") or {}
    return float(request.get("grace_seconds") or 30.0) + _MARGIN_SECONDS
