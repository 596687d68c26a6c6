"""Fleets that answer as a test wants, and the facts of a host with nothing wrong."""

import dataclasses

import pytest

from distrib.doctor.check import Situation
from distrib.doctor.host_facts import HostFacts
from distrib.launch.fleet import Member, NoAnswer

HEALTHY = HostFacts(
    name="a",
    python="3.11.7",
    versions={"torch": "2.13.0", "ray": "2.60.0", "distrib": "0.1.0", "numpy": "2.1.0"},
    num_cpus=8,
    name_addresses=("10.0.0.1",),
    interfaces={"lo": ("127.0.0.1",), "eth0": ("10.0.0.1",)},
    shared_memory_bytes=2**34,
    num_open_files=65536,
    free_bytes={"/tmp": 2**40},
)


class FakeFleet:
    """Runs functions in this process; `answers` replaces the result of a function, by its name and host."""

    silent: dict = {}  # noqa: RUF012

    def __init__(self, num_hosts=1, answers=None):
        self.members = [Member(f"host{i}", f"10.0.0.{i}") for i in range(1, num_hosts + 1)]
        self.answers = answers or {}

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass

    def call(self, function, arguments, timeout_seconds):
        results = {}
        for host, values in arguments.items():
            if (function.__name__, host) in self.answers:
                results[host] = self.answers[function.__name__, host]
                continue
            try:
                results[host] = function(*values)
            except Exception as error:
                results[host] = NoAnswer(f"{type(error).__name__}: {error}")
        return results


@pytest.fixture
def examine():
    """Runs one check on hosts with the given changes to healthy facts, one dict a host; returns its findings."""

    def run(check, *changes, answers=None, job=None, request=None):
        fleet = FakeFleet(len(changes) or 1, answers)
        facts = {
            member.name: dataclasses.replace(
                HEALTHY, name=member.name, **{"interfaces": {"eth0": (member.address,)}, **changed}
            )
            for member, changed in zip(fleet.members, changes or [{}], strict=True)
        }
        situation = Situation(facts, job, request)
        return list(check.run(situation) if hasattr(check, "is_free") else check.run(situation, fleet))

    return run
