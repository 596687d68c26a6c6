"""Runs the checks, cheapest first."""

from __future__ import annotations

from collections.abc import Iterator

from distrib.doctor.check import FactCheck, FleetCheck, Situation
from distrib.doctor.checks.clock import Clock
from distrib.doctor.checks.collective import Collective
from distrib.doctor.checks.environment import Environment
from distrib.doctor.checks.gpus import Gpus
from distrib.doctor.checks.job import JobTargets
from distrib.doctor.checks.names import Names
from distrib.doctor.checks.network import Ports
from distrib.doctor.checks.processors import Processors
from distrib.doctor.checks.room import Room
from distrib.doctor.checks.storage import SharedStorage
from distrib.doctor.checks.versions import Versions
from distrib.doctor.finding import Finding
from distrib.doctor.host_facts import HostFacts, collect_host_facts
from distrib.job.plan import Device, Request, make_request
from distrib.job.reader import Job
from distrib.job.script import AnyJob
from distrib.launch.fleet import Fleet, NoAnswer
from distrib.runs.storage.location import local_folders

FACT_CHECKS: tuple[FactCheck, ...] = (Versions(), Gpus(), Processors(), Environment(), Room(), Names())
FLEET_CHECKS: tuple[FleetCheck, ...] = (Clock(), Ports(), SharedStorage(), Collective(), JobTargets())
"""Every check, in the order in which they run and are shown."""

_FACTS_SECONDS = 45.0


def examine(fleet: Fleet, job: Job | None) -> Iterator[Finding]:
    """Runs the checks on the hosts of a fleet.

    Args:
        fleet: The hosts, entered.
        job: The job that is to run on them, if any.

    Yields:
        Findings, as soon as they are known.
    """
    folders = storage_folders(job)
    answers = fleet.call(collect_host_facts, {member.name: (folders,) for member in fleet.members}, _FACTS_SECONDS)
    facts = {name: answer for name, answer in answers.items() if isinstance(answer, HostFacts)}
    silent = {**fleet.silent, **{name: a.reason for name, a in answers.items() if isinstance(a, NoAnswer)}}
    for name, reason in silent.items():
        fix = "look at the host's Ray logs, and whether torch and distrib are installed there"
        yield Finding("hosts", "failed", f"does not run the checks: {reason}", (name,), fix)
    if not silent:
        plural = "s" if len(facts) > 1 else ""
        yield Finding("hosts", "ok", f"{len(facts)} host{plural}: " + ", ".join(facts))
    if facts:
        fleet.members = [member for member in fleet.members if member.name in facts]
        situation = Situation(facts, job, None if job is None else _request(job, facts))
        for fact_check in FACT_CHECKS:
            yield from fact_check.run(situation)
        for fleet_check in FLEET_CHECKS:
            yield from fleet_check.run(situation, fleet)


def storage_folders(job: AnyJob | None) -> tuple[str, ...]:
    """The folder in which a job keeps its runs; none if that is an object store."""
    return () if job is None else local_folders(job.spec.storage)


def _request(job: Job, facts: dict[str, HostFacts]) -> Request:
    """What the job asks for, where `resources.device: auto` means the GPUs that the hosts have."""
    has_gpus = any(known.num_visible_gpus for known in facts.values())
    device: Device = "cuda" if has_gpus and job.spec.resources.device != "cpu" else "cpu"
    return make_request(job.spec, "local" if len(facts) == 1 else "ray", device)
