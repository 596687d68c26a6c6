"""Are the Python versions and packages the same on every host?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from distrib.doctor.check import Situation
from distrib.doctor.finding import Finding
from distrib.doctor.host_facts import PACKAGES


class Versions:
    """Compares the versions of Python and of the packages that take part in a training."""

    name = "versions"
    is_free = False

    def run(self, situation: Situation) -> Iterable[Finding]:
        """One finding for each version that differs or is missing."""
        facts = situation.facts
        by_subject = {"python": {host: known.python for host, known in facts.items()}}
        for package in PACKAGES:
            by_subject[package] = {host: known.versions.get(package) or "none" for host, known in facts.items()}
        differing = {subject: found for subject, found in by_subject.items() if len(set(found.values())) > 1}
        for subject, found in differing.items():
            odd = _minority(found)
            yield Finding(
                self.name,
                "failed" if subject in ("torch", "distrib") else "warning",
                f"{subject} differs: " + ", ".join(f"{version} on {host}" for host, version in found.items()),
                odd,
                f"install the same version of {subject} on every host",
            )
        if not differing and facts:
            versions = {subject: next(iter(found.values())) for subject, found in by_subject.items()}
            shown = ", ".join(f"{subject} {version}" for subject, version in versions.items() if version != "none")
            yield Finding(self.name, "ok", shown)


def _minority(found: Mapping[str, str]) -> tuple[str, ...]:
    """The hosts whose value fewer hosts have than the most common one."""
    values = list(found.values())
    common = max(values, key=values.count)
    return tuple(host for host, value in found.items() if value != common)
