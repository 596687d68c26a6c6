"""`distrib plan`: prints the plan of a job: its resources and what every rank does."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distrib.cli.options import (
    DeviceOption,
    JobArgument,
    JsonOption,
    OnOption,
    RunIdOption,
    RunsDirOption,
    SetOption,
    WorkersOption,
    check_run_id,
    load_job,
)

if TYPE_CHECKING:
    from distrib.job.plan import Plan


def plan(
    job: JobArgument,
    *,
    sets: SetOption = None,
    workers: WorkersOption = None,
    device: DeviceOption = None,
    runs_dir: RunsDirOption = None,
    run_id: RunIdOption = None,
    on: OnOption = None,
    is_tried: Annotated[
        bool, typer.Option("--try", help="Also run one batch forward and backward, as rank 0 would.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Print what a job would do, without running it."""
    loaded = load_job(job, sets, workers=workers, device=device, runs_dir=runs_dir)
    check_run_id(run_id)

    from distrib.launch.registry import default_launcher
    from distrib.launch.start import plan as make_plan
    from distrib.launch.start import plan_and_try
    from distrib.observe.terminal.listing import plan_listing, trial_listing
    from distrib.runs.events import finite

    launcher = on or default_launcher(None)

    def show(made: Plan) -> None:
        if not as_json:
            print(plan_listing(made, loaded.spec, run_id), flush=True)

    if is_tried:
        made, trial = plan_and_try(loaded, launcher=launcher, show=show)
        tried: dict[str, Any] | None = asdict(trial)
    else:
        made, tried = make_plan(loaded, launcher=launcher), None
        show(made)
    if as_json:
        print(json.dumps(made.as_dict() if tried is None else {**made.as_dict(), "trial": finite(tried)}))
    elif tried is not None:
        print("\n" + trial_listing(tried))
