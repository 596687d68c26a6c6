"""Hosts of a lab that are lost, come back and are cut off, while an elastic job trains on two or three of them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cluster.lab import Lab, LabError
from tests.bench.compare import Row
from tests.bench.in_lab import a_lab
from tests.bench.process import SideFailedError
from tests.support.lab_runs import Launch, Project

BARE_RAY_TRAIN_SECONDS = 73.0
"""From the loss of a host to the next step, on three hosts like these with Ray's own health checks."""
BOUNDS = {"host killed": 0.27 * BARE_RAY_TRAIN_SECONDS, "grown from 2 to 3": 20.0, "link cut": 30.0}
PACE_SECONDS = 0.1


def measure(rounds: int) -> list[Row]:
    """Three rows of the same runs, or one that says why there is no lab."""
    pauses: dict[str, list[float]] = {name: [] for name in BOUNDS}
    try:
        with a_lab(4, cpus=1, has_bare_head=True) as lab:
            for _ in range(rounds):
                for name, seconds in one_run(lab).items():
                    pauses[name].append(seconds)
    except LabError as error:
        return [Row("hosts", problem=str(error), skipped=True)]
    return [
        Row(f"{name}: from the last step to the next, s", tuple(seconds), bound=BOUNDS[name])
        for name, seconds in pauses.items()
    ]


def one_run(lab: Lab) -> dict[str, float]:
    """The pauses of a run that loses a host, gets it back, and has another cut off."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        project = Project(lab, Path(name, "project"), workers={"min": 2, "max": 3})  # type: ignore[no-untyped-call]
        project.pace(PACE_SECONDS)
        launch = project.start("--set", "train.steps=100000")
        try:
            return _pauses(lab, project, launch)
        except AssertionError as error:
            raise SideFailedError(str(error)) from None
        finally:
            project.close()
            for host in lab.status()["hosts"]:
                lab.heal(host["name"])
                if host["status"] != "up" or not host["processes"]:
                    lab.kill(host["name"])
                    lab.join(host["name"])


def _pauses(lab: Lab, project: Project, launch: Launch) -> dict[str, float]:
    def pause(name: str, attempt: int, disturb: Callable[[str], Any], host: str) -> None:
        launch.wait_until(lambda: len(project.steps(attempt)) > 20)
        disturb(host)
        launch.wait_until(lambda: project.steps(attempt + 1))
        times = [[event["time"] for event in project.events("train") if event["attempt"] == attempt + after]
                 for after in (0, 1)]  # fmt: skip
        found[name] = times[1][0] - times[0][-1]

    found: dict[str, float] = {}
    launch.wait_until(lambda: len(project.steps(0)) > 20)
    host, _ = project.place_of(1)
    pause("host killed", 0, lab.kill, host)
    pause("grown from 2 to 3", 1, lab.join, host)
    host, _ = project.place_of(2)
    pause("link cut", 2, lab.cut, host)
    return found
