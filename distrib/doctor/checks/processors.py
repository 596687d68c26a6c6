"""Are there as many CPUs as the ranks of a host use threads?"""

from __future__ import annotations

from collections.abc import Iterable

from distrib.doctor.check import Situation
from distrib.doctor.finding import Finding


class Processors:
    """Compares threads with CPUs. Where ranks are spread by a cluster's scheduler, that reserves CPUs instead."""

    name = "processors"
    is_free = True

    def run(self, situation: Situation) -> Iterable[Finding]:
        """One finding for each host with too few CPUs."""
        request, facts, problems = situation.request, situation.facts, 0
        is_one_host = len(facts) == 1
        for host, known in facts.items():
            num_cpus = min(known.num_cpus, known.cpu_quota or known.num_cpus)
            workers = request.min_workers if request is not None and is_one_host else 1
            per_worker = 1 if request is None else request.cpus_per_worker
            if workers * per_worker > num_cpus:
                problems += 1
                yield Finding(
                    self.name,
                    "warning",
                    f"{workers} workers with {per_worker} threads each share {num_cpus:g} CPUs and wait for each other",
                    (host,),
                    "use fewer workers, lower resources.cpus_per_worker, or give the container more CPUs",
                )
        if not problems and facts:
            yield Finding(self.name, "ok", f"{sum(known.num_cpus for known in facts.values())} CPUs")
