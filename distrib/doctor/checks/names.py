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
    is_free = False

    def run(self, situation: Situation) -> Iterable[Finding]:
        """One finding for each kind of problem."""
        facts = situation.facts
        slow = [host for host, known in facts.items() if known.name_seconds > _SLOW_SECONDS]
        unknown = [host for host, known in facts.items() if not known.name_addresses and host not in slow]
        misleading = [
            host
            for host, known in facts.items()
            if len(facts) > 1 and known.name_addresses and all(map(_is_loopback, known.name_addresses))
        ]
        if slow:
            message = f"resolving its own name takes more than {_SLOW_SECONDS:g} s"
            yield Finding(self.name, "warning", message, tuple(slow), "repair the name server, or use /etc/hosts")
        if unknown:
            yield Finding(self.name, "warning", "its own name does not resolve", tuple(unknown), "add it to /etc/hosts")
        if misleading:
            message = "its own name means loopback; distrib picks the right interface, other programs may not"
            yield Finding(self.name, "warning", message, tuple(misleading), "give it its address in /etc/hosts")
        if not (slow or unknown or misleading):
            yield Finding(self.name, "ok", "host names resolve")


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback
