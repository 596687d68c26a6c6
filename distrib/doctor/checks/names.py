"""Does each host's name resolve, and quickly?"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from distrib.doctor.check import Situation
from distrib.doctor.finding import Finding

_SLOW_SECONDS = 1.0


class Names:
    """Checks how host names resolve: without a choice of interface, gloo connects through what its own name means."""

    name = "names"
    is_free = True

    def run(self, situation: Situation) -> Iterable[Finding]:
        """One finding for each host whose name misleads."""
        problems = 0
        for host, facts in situation.facts.items():
            fix = f"add a line with its address and {facts.name} to /etc/hosts"
            if facts.name_seconds > _SLOW_SECONDS:
                problems += 1
                message = f"resolving {facts.name} took {facts.name_seconds:.1f} s"
                yield Finding(self.name, "warning", message, (host,), fix + ", or repair the name server")
            elif not facts.name_addresses:
                problems += 1
                yield Finding(self.name, "warning", f"the name {facts.name} does not resolve", (host,), fix)
            elif len(situation.facts) > 1 and all(map(_is_loopback, facts.name_addresses)):
                problems += 1
                message = f"{facts.name} resolves to {facts.name_addresses[0]}, which other hosts cannot reach"
                note = "; distrib chooses the interface itself, scripts that use gloo or NCCL directly do not"
                yield Finding(self.name, "warning", message + note, (host,), fix)
        if not problems:
            yield Finding(self.name, "ok", "host names resolve")


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback
