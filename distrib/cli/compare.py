"""`distrib compare`: compares the results and jobs of several runs."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from distrib.cli.options import JsonOption, RunsDirOption, find_run, no_run, run_ids


def compare(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN RUN", help="The runs' ids, folders or URLs.", autocompletion=run_ids)
    ],
    *,
    runs_dir: RunsDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare the results of runs and the fields in which their jobs differ."""
    if len(runs) < 2:
        raise typer.BadParameter("give at least two runs", param_hint="RUN RUN")
    found = []
    for name in runs:
        run = find_run(name, runs_dir)
        if run is None:
            raise no_run(name)
        found.append(run)

    from distrib.observe.comparison import compare as compare_runs
    from distrib.observe.comparison import print_comparison

    comparison = compare_runs(found)
    if as_json:
        print(json.dumps(comparison))
    else:
        print_comparison(comparison, sys.stdout)
