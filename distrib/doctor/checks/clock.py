"""Do the clocks of the hosts agree?"""

from __future__ import annotations

import time
from collections.abc import Iterable

from distrib.doctor.check import Situation
from distrib.doctor.finding import Finding
from distrib.launch.fleet import Fleet, NoAnswer

_SECONDS = 10.0
_SKEWED_SECONDS = 2.0
"""Leases of runs expire after 15 s, and events of ranks are ordered by their times."""


class Clock:
    """Compares every host's clock with this one's, as NTP does: against the middle of a request's round trip."""

    name = "clock"

    def run(self, situation: Situation, fleet: Fleet) -> Iterable[Finding]:
        """One finding for each clock that is off."""
        largest, problems = 0.0, 0
        for member in fleet.members:
            sent = time.time()
            answer = fleet.call(time.time, {member.name: ()}, _SECONDS)[member.name]
            received = time.time()
            if isinstance(answer, NoAnswer):
                continue
            skew = answer - (sent + received) / 2
            sure = max(0.0, abs(skew) - (received - sent) / 2)
            largest = max(largest, sure)
            if sure > _SKEWED_SECONDS:
                problems += 1
                message = f"its clock is {abs(skew):.1f} s {'ahead' if skew > 0 else 'behind'}"
                yield Finding(
                    self.name, "warning", message, (member.name,), "synchronize it: chronyd or systemd-timesyncd"
                )
        if not problems:
            yield Finding(self.name, "ok", f"clocks agree within {max(largest, 0.1):.1f} s")
