"""`distrib watch`: shows the progress of a run, no matter where it was started."""

from __future__ import annotations

import sys

import typer

from distrib.cli.options import RunArgument, RunsDirOption, find_run, no_run
from distrib.cli.run import print_summary
from distrib.errors import JobError

_EXIT_CODES = {"finished": 0, "stopped": 130}


def watch(run: RunArgument, *, runs_dir: RunsDirOption = None) -> None:
    """Show the progress of a run until it ends; Ctrl-C stops watching, not the run."""
    found = find_run(run, runs_dir)
    if found is None:
        raise no_run(run)

    from distrib.observe.terminal.watch import RunWatcher

    try:
        RunWatcher(found, sys.stdout).watch()
    except KeyboardInterrupt:
        print(f"{found.id} continues; distrib stop {run} stops it", file=sys.stderr)
        return
    except OSError as error:
        raise JobError(f"the events of {found.id} cannot be read: {error.strerror or error}") from None
    print_summary(found, sys.stdout)
    raise typer.Exit(_EXIT_CODES.get(found.status, 1))
