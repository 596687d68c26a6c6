"""`distrib logs`: the output of the ranks of a run."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from distrib.cli.options import JobServerOption, RunArgument, RunsDirOption, find_job, find_run, no_run
from distrib.errors import JobError
from distrib.observe.format import clock_time

if TYPE_CHECKING:
    from distrib.observe.rank_logs import LogLine
    from distrib.runs.run import Run


def logs(
    run: RunArgument,
    *,
    rank: Annotated[int | None, typer.Option("--rank", min=0, metavar="N", help="Only this rank.")] = None,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Continue until the run has ended.")] = False,
    times: Annotated[bool, typer.Option("-t", "--times", help="Show when each line was printed.")] = False,
    runs_dir: RunsDirOption = None,
    address: JobServerOption = None,
) -> None:
    """Print the output of the ranks of a run in the order of time, each line with its rank and host.

    If the run's folder cannot be read from here, the output of its Ray job is printed instead.
    """
    found = find_run(run, runs_dir)
    if found is not None:
        _print_ranks(found, rank, is_following=follow, has_times=times)
        return
    on_cluster = find_job(run, address)
    if on_cluster is None:
        raise no_run(run)
    if rank is not None:
        raise JobError(f"the folder of {run} cannot be seen from here, and Ray does not keep ranks apart: --runs-dir")
    server, job = on_cluster
    if follow:
        server.follow(job.id, _write)
    else:
        _write(server.logs(job.id))


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _shown(line: LogLine, *, has_rank: bool, has_time: bool) -> str:
    when = clock_time(line.time) if has_time else ""
    prefix = " ".join(part for part in (when, line.origin if has_rank else "") if part)
    return f"[{prefix}] {line.text}" if prefix else line.text


def _print_ranks(run: Run, rank: int | None, *, is_following: bool, has_times: bool) -> None:
    from distrib.observe.rank_logs import RankLogs

    run.storage.fetch_logs()
    tails = RankLogs(run, rank)
    if rank is not None and not is_following and not tails.poll_exists():
        raise JobError(f"rank {rank} of {run.id} has printed nothing; its ranks are {tails.known or 'none'}")
    has_output = False
    while True:
        is_over = run.status != "running"
        for line in tails.poll(is_last=is_over or not is_following):
            has_output = True
            print(_shown(line, has_rank=rank is None, has_time=has_times))
        sys.stdout.flush()
        if is_over or not is_following:
            break
        time.sleep(run.storage.poll_seconds)
        run.refresh()
        run.storage.fetch_logs()
    if not has_output:
        who = "the ranks have" if rank is None else f"rank {rank} has"
        print(f"{run.id}: {who} printed nothing{'' if is_over else ' so far'}", file=sys.stderr)
