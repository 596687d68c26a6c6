"""The checks that cost nothing, which `run` makes on this machine before it starts ranks there."""

from __future__ import annotations

from distrib.doctor.check import Situation
from distrib.doctor.examination import FACT_CHECKS, storage_folders
from distrib.doctor.finding import Finding
from distrib.doctor.host_facts import collect_free_facts
from distrib.errors import LaunchError
from distrib.job.plan import Request
from distrib.job.script import AnyJob


def check_this_machine(job: AnyJob, request: Request | None = None) -> list[Finding]:
    """Runs the free checks on this machine.

    Args:
        job: The job that is about to run here.
        request: What it asks for, if that is known.

    Returns:
        The warnings.

    Raises:
        LaunchError: A check failed.
    """
    facts = collect_free_facts(storage_folders(job))
    situation = Situation({facts.name: facts}, job, request)
    findings = [finding for check in FACT_CHECKS if check.is_free for finding in check.run(situation)]
    for finding in findings:
        if finding.status == "failed":
            raise LaunchError(f"{finding.message}; {finding.fix}")
    return [finding for finding in findings if finding.status == "warning"]
