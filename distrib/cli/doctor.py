"""`distrib doctor`: checks this machine, or every host of a cluster, before training."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from distrib.cli.options import (
    DeviceOption,
    JsonOption,
    RunsDirOption,
    SetOption,
    WorkersOption,
    choose_launcher,
    load_job,
)
from distrib.cli.terminal import GREEN, RED, YELLOW, colored

if TYPE_CHECKING:
    from distrib.doctor.finding import Finding
    from distrib.launch.fleet import Fleet

FAILED_EXIT_CODE = 3
EXIT_CODES = """\b
Exit codes:
  0  no check failed
  2  the job or the command line is wrong
  3  a check failed, or the cluster cannot be reached
"""
_COLORS = {"ok": GREEN, "warning": YELLOW, "failed": RED}
_STATUS_WIDTH, _NAME_WIDTH = 9, 13


def doctor(
    job: Annotated[str | None, typer.Argument(metavar="[JOB]", help="Job to check for, if any.")] = None,
    *,
    address: Annotated[
        str | None, typer.Option("--address", metavar="HOST:PORT", help="Check every host of this Ray cluster.")
    ] = None,
    sets: SetOption = None,
    workers: WorkersOption = None,
    device: DeviceOption = None,
    runs_dir: RunsDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check this machine, or every host of a cluster, for problems that would break a training."""
    loaded = None if job is None else load_job(job, sets, workers=workers, device=device, runs_dir=runs_dir)
    _, cluster = choose_launcher(None, address)

    from distrib.doctor.examination import examine

    stream = sys.stderr if as_json else sys.stdout
    with _fleet(cluster) as fleet:
        findings = _show(examine(fleet, loaded), stream)
    failed = sum(finding.status == "failed" for finding in findings)
    if as_json:
        print(json.dumps({"checks": [finding.as_dict() for finding in findings]}))
    raise typer.Exit(FAILED_EXIT_CODE if failed else 0)


def _fleet(address: str | None) -> Fleet:
    if address is None:
        from distrib.launch.local.fleet import LocalFleet

        return LocalFleet()
    from distrib.launch.ray.fleet import RayFleet

    return RayFleet(address)


def _show(found: Iterable[Finding], stream: TextIO) -> list[Finding]:
    """Prints findings as they arrive and returns them."""
    findings = []
    for finding in found:
        findings.append(finding)
        status = colored(finding.status.ljust(_STATUS_WIDTH), _COLORS[finding.status], stream)
        hosts = f"{', '.join(finding.hosts)}: " if finding.hosts else ""
        print(status + finding.name.ljust(_NAME_WIDTH) + hosts + finding.message, file=stream, flush=True)
        if finding.fix:
            print(textwrap.indent(f"fix: {finding.fix}", " " * (_STATUS_WIDTH + _NAME_WIDTH)), file=stream, flush=True)
    return findings
