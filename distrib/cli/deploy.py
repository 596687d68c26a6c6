"""`distrib submit --render` and `--on`: a job for a system that starts hosts for it."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from distrib.errors import JobError

if TYPE_CHECKING:
    from distrib.deploy.deployment import Deployment

_SUBMITTERS = ("slurm",)
"""Targets that `--on` can hand a job to, since a command of theirs takes what is rendered."""


def choose_target(
    render: str | None, on: str | None, address: str | None, settings: Sequence[str] | None
) -> str | None:
    """The target that the options name; None for a Ray cluster that runs already.

    Raises:
        JobError: The options contradict each other, or there is no such target.
    """
    given = [
        option for option, value in {"--render": render, "--on": on, "--address": address}.items() if value is not None
    ]
    if len(given) > 1:
        raise JobError(f"{' and '.join(given)} exclude each other; use one of them", field=given[0])
    if on is not None and on not in _SUBMITTERS:
        raise JobError(
            f"{on!r} takes no jobs; --on {' or '.join(_SUBMITTERS)} does, --address URL sends to a Ray cluster, "
            f"--render {on} prints what kubectl or docker would apply",
            field="--on",
        )
    target = render or on
    if target is None:
        if settings:
            raise JobError("settings belong to --render or --on; add one of them", field="--with")
        return None

    from distrib.deploy.registry import find_renderer

    return find_renderer(target).name


def deploy(deployment: Deployment, target: str, settings: list[str], *, is_submitted: bool, as_json: bool) -> None:
    """Prints what would be applied for `target`, or hands it over and prints under which number.

    Raises:
        JobError: The target cannot express the job.
        LaunchError: It refuses the job.
    """
    from distrib.deploy.registry import find_renderer

    text = find_renderer(target).render(deployment, settings)
    for note in deployment.notes:
        print(f"distrib: {note}", file=sys.stderr)
    if not is_submitted:
        print(json.dumps({"id": deployment.run_id, "target": target, "text": text}) if as_json else text.rstrip("\n"))
        return

    from distrib.deploy.slurm.sbatch import submit_script

    number = submit_script(text)
    if as_json:
        print(json.dumps({"id": deployment.run_id, "job": number, "status": "PENDING"}))
        return
    print(
        f"{deployment.run_id}: job {number} of Slurm\n"
        f"  watch   squeue -j {number}\n"
        f"  stop    scancel --batch --signal=TERM {number}"
    )
