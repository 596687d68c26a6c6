"""Variables that other launchers leave behind and that would mislead the ranks."""

from __future__ import annotations

from collections.abc import Iterable

from distrib.doctor.check import Situation
from distrib.doctor.finding import Finding
from distrib.doctor.host_facts import INTERFACE_VARIABLES, RENDEZVOUS_VARIABLES, STEP_TASKS_VARIABLE


class Environment:
    """Finds variables of other launchers, and interfaces that do not exist."""

    name = "environment"
    is_free = True

    def run(self, situation: Situation) -> Iterable[Finding]:
        """One finding for each variable that is in the way."""
        problems = 0
        for host, facts in situation.facts.items():
            stale = [name for name in RENDEZVOUS_VARIABLES if name in facts.environment]
            if stale:
                problems += 1
                yield Finding(
                    self.name,
                    "warning",
                    f"set by another launcher, and ignored: {', '.join(stale)}",
                    (host,),
                    "start distrib once, not once per process of torchrun or srun; unset " + " ".join(stale),
                )
            copies = facts.environment.get(STEP_TASKS_VARIABLE, "1")
            if copies not in ("", "0", "1"):
                problems += 1
                yield Finding(
                    self.name,
                    "warning",
                    f"srun has started {copies} copies of this command, and each of them trains the whole job",
                    (host,),
                    "start one: srun --ntasks=1, or distrib submit --on slurm",
                )
            for name in INTERFACE_VARIABLES:
                chosen = facts.environment.get(name, "").lstrip("^=").split(",")[0]
                if chosen and not any(interface.startswith(chosen) for interface in facts.interfaces):
                    problems += 1
                    there = ", ".join(facts.interfaces)
                    yield Finding(
                        self.name,
                        "failed",
                        f"{name}={facts.environment[name]} names an interface that does not exist; there are {there}",
                        (host,),
                        f"unset {name}, or set it to one of these",
                    )
        if not problems:
            yield Finding(self.name, "ok", "no variables of other launchers")
