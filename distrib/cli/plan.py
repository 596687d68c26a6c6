"""`distrib plan`: prints the plan of a job: its resources and what every rank does."""

from __future__ import annotations

import json

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


def plan(
    job: JobArgument,
    *,
    sets: SetOption = None,
    workers: WorkersOption = None,
    device: DeviceOption = None,
    runs_dir: RunsDirOption = None,
    run_id: RunIdOption = None,
    on: OnOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print what a job would do, without running it."""
    loaded = load_job(job, sets, workers=workers, device=device, runs_dir=runs_dir)
    check_run_id(run_id)

    from distrib.launch.registry import default_launcher
    from distrib.launch.start import plan as make_plan
    from distrib.observe.listing import plan_listing

    made = make_plan(loaded, launcher=on or default_launcher(None))
    print(json.dumps(made.as_dict()) if as_json else plan_listing(made, loaded.spec, run_id))
