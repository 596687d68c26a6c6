"""The protocol that every check follows, and what a check may look at."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from distrib.doctor.finding import Finding
from distrib.doctor.host_facts import HostFacts
from distrib.job.plan import Request
from distrib.job.reader import Job
from distrib.launch.fleet import Fleet


@dataclass(frozen=True)
class Situation:
    """What the checks look at.

    Attributes:
        fleet: The hosts; functions can be run on them.
        facts: What is known of each host, by its name. Hosts that do not answer are missing.
        job: The job that is to run, or None.
        request: What the job asks for, or None.
    """

    fleet: Fleet
    facts: dict[str, HostFacts]
    job: Job | None = None
    request: Request | None = None


class Check(Protocol):
    """One thing that can be wrong with hosts or their environment.

    Attributes:
        name: A short name, shown in front of each finding.
        is_free: Whether the check only reads `Situation.facts`, so that `run` and `submit` can afford it every time.
    """

    name: str
    is_free: bool

    def run(self, situation: Situation) -> Iterable[Finding]:
        """Yields what was found: at least one finding, `ok` if nothing is wrong."""
