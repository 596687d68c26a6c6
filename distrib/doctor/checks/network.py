"""Can every host reach every other host at one of its ports, through a known interface?"""

from __future__ import annotations

from collections.abc import Iterable

from distrib.doctor.check import Situation
from distrib.doctor.finding import Finding
from distrib.doctor.links import open_port, reach
from distrib.launch.fleet import Fleet, NoAnswer

_SECONDS = 15.0


class Ports:
    """Connects every host to a free port of every other, which is what gloo, NCCL and the ranks' store do."""

    name = "network"

    def run(self, situation: Situation, fleet: Fleet) -> Iterable[Finding]:
        """One finding for each pair that cannot connect, and each host whose interface is unknown."""
        problems = 0
        for member in fleet.members:
            facts = situation.facts.get(member.name)
            if facts is not None and not any(member.address in found for found in facts.interfaces.values()):
                problems += 1
                yield Finding(
                    self.name,
                    "warning",
                    f"no interface carries its cluster address {member.address}; gloo and NCCL choose one themselves",
                    (member.name,),
                    "set GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME on it",
                )
        ports = fleet.call(open_port, {m.name: (m.address,) for m in fleet.members}, _SECONDS)
        targets = {m.name: (m.address, ports[m.name]) for m in fleet.members if isinstance(ports[m.name], int)}
        found = fleet.call(reach, {m.name: (targets,) for m in fleet.members}, _SECONDS)
        for name, unreachable in found.items():
            if isinstance(unreachable, NoAnswer):
                problems += 1
                yield Finding(self.name, "failed", f"could not test its connections: {unreachable.reason}", (name,))
            for other in () if isinstance(unreachable, NoAnswer) else unreachable:
                problems += 1
                yield Finding(
                    self.name,
                    "failed",
                    f"{name} cannot connect to {other} at a free port",
                    (name, other),
                    "open all TCP ports between the hosts: firewall, security group or network policy",
                )
        if not problems:
            pairs = len(fleet.members) * (len(fleet.members) - 1)
            yield Finding(
                self.name, "ok", f"{pairs} connections between {len(fleet.members)} hosts" if pairs else "ports open"
            )
