"""The protocols that checks follow, and what a check may look at."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from distrib.doctor.finding import Finding
from distrib.doctor.host_facts import HostFacts
from distrib.job.plan import Request
from distrib.job.script import AnyJob
from distrib.launch.fleet import Fleet


@dataclass(frozen=True)
class Situation:
    """What is known before anything is tried.

    Attributes:
        facts: What is known of each host, by its name. Hosts that do not answer are missing.
        job: The job that is to run, or None.
        request: What the job asks for, or None.
    """

    facts: dict[str, HostFacts]
    job: AnyJob | None = None
    request: Request | None = None


class FactCheck(Protocol):
    """A check that only reads facts.

    Attributes:
        name: A short name, shown in front of each finding.
        is_free: Whether `collect_free_facts` has all that it reads, so that `run` can afford it every time.
    """

    name: str
    is_free: bool

    def run(self, situation: Situation) -> Iterable[Finding]:
        """Yields what was found: `ok` if nothing is wrong."""


class FleetCheck(Protocol):
    """A check that tries something on the hosts.

    Attributes:
        name: A short name, shown in front of each finding.
    """

    name: str

    def run(self, situation: Situation, fleet: Fleet) -> Iterable[Finding]:
        """Yields what was found: `ok` if nothing is wrong, nothing if the check does not apply."""
