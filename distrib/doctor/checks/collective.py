"""Does an all-reduce work between the hosts, and is one of them slower than the others?"""

from __future__ import annotations

import statistics
from collections.abc import Iterable

from distrib.doctor.check import Situation
from distrib.doctor.finding import Finding
from distrib.doctor.links import LinkSpeed, measure_links, open_port
from distrib.launch.fleet import Fleet, Member, NoAnswer

_SECONDS = 60.0
_PORT_SECONDS = 15.0
_SLOW_FRACTION = 0.5
"""A host whose links reach less than this fraction of the median bandwidth of the others' is called slow."""
_LATE_FACTOR = 4.0
"""The same for latency, which varies more."""


class Collective:
    """Runs all-reduces on the backend of the job, all hosts together and then in pairs."""

    name = "all-reduce"

    def run(self, situation: Situation, fleet: Fleet) -> Iterable[Finding]:
        """A finding for each slow host, or the slowest and the fastest link."""
        backend = "gloo" if situation.request is None else situation.request.backend
        head = fleet.members[0]
        port = fleet.call(open_port, {head.name: (head.address,)}, _PORT_SECONDS)[head.name]
        if isinstance(port, NoAnswer):
            yield Finding(self.name, "failed", f"no port could be opened: {port.reason}", (head.name,))
            return
        num_hosts = len(fleet.members)
        arguments = {
            member.name: (rank, num_hosts, member.address, head.address, port, backend)
            for rank, member in enumerate(fleet.members)
        }
        answers = fleet.call(measure_links, arguments, _SECONDS)
        failed = {name: answer.reason for name, answer in answers.items() if isinstance(answer, NoAnswer)}
        if failed:
            name, reason = next(iter(failed.items()))
            message = f"an all-reduce with {backend} fails: {reason.splitlines()[0]}"
            fix = "see the other findings; NCCL_DEBUG=INFO shows what NCCL tries" if backend == "nccl" else ""
            yield Finding(self.name, "failed", message, (name,), fix or "see the other findings")
            return
        yield from self._compare(fleet.members, [speed for answer in answers.values() for speed in answer], backend)

    def _compare(self, members: list[Member], speeds: list[LinkSpeed], backend: str) -> Iterable[Finding]:
        if not speeds:
            yield Finding(self.name, "ok", f"{backend} works")
            return
        slow = False
        for position, message in slow_hosts(len(members), speeds).items():
            slow = True
            fix = "look at its link, its load and its interface; leave it out until it is as fast as the others"
            yield Finding(self.name, "warning", message, (members[position].name,), fix)
        if not slow:
            rates = [speed.bytes_per_second for speed in speeds]
            latency = statistics.median(speed.latency_seconds for speed in speeds)
            span = f"{_rate(min(rates))} to {_rate(max(rates))}" if len(rates) > 1 else _rate(rates[0])
            yield Finding(self.name, "ok", f"{backend} between pairs of hosts: {span}, {latency * 1e3:.2f} ms")


def slow_hosts(num_hosts: int, speeds: list[LinkSpeed]) -> dict[int, str]:
    """The hosts that are slow against the others, by position, each with how slow; none if there are fewer than three.

    A host is judged by the median over its links, compared with the median over the links without it.
    """
    found: dict[int, str] = {}
    for host in range(num_hosts):
        own = [speed for speed in speeds if host in speed.hosts]
        others = [speed for speed in speeds if host not in speed.hosts]
        if not own or not others:
            continue
        rate = statistics.median(speed.bytes_per_second for speed in own)
        usual_rate = statistics.median(speed.bytes_per_second for speed in others)
        latency = statistics.median(speed.latency_seconds for speed in own)
        usual_latency = statistics.median(speed.latency_seconds for speed in others)
        if rate < _SLOW_FRACTION * usual_rate:
            found[host] = f"its links carry {_rate(rate)}; the others' carry {_rate(usual_rate)}"
        elif latency > _LATE_FACTOR * usual_latency and latency - usual_latency > 1e-3:
            found[host] = (
                f"an all-reduce with it takes {latency * 1e3:.1f} ms; the others' take {usual_latency * 1e3:.1f} ms"
            )
    return found


def _rate(bytes_per_second: float) -> str:
    return (
        f"{bytes_per_second * 8 / 1e9:.2g} Gbit/s"
        if bytes_per_second >= 1.25e8
        else f"{bytes_per_second * 8 / 1e6:.3g} Mbit/s"
    )
