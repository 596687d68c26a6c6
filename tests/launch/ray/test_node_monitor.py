"""The monitor of a cluster's hosts, with the cluster replaced by a list."""

import time
from dataclasses import replace

import pytest

from distrib.errors import ClusterLostError
from distrib.job.plan import Request
from distrib.launch.launcher import Placement
from distrib.launch.ray.cluster import node_monitor
from distrib.launch.ray.cluster.node_monitor import NodeMonitor
from distrib.launch.ray.cluster.placement import ClusterHost

pytestmark = pytest.mark.timeout(120)


def host(name, **changes):
    cpus = {"CPU": 2.0}
    return replace(ClusterHost(name, f"{name} (10.0.0.1)", "10.0.0.1", 1, cpus, cpus), **changes)


@pytest.fixture
def cluster(monkeypatch):
    """A list of hosts that the monitor polls every 10 ms; an exception in it is raised instead."""
    hosts = [host("a"), host("b")]

    def list_hosts(known_dead):
        if isinstance(hosts[0], Exception):
            raise hosts[0]
        return [replace(one, is_answering=one.is_answering and one.node_id not in known_dead) for one in hosts]

    monkeypatch.setattr(node_monitor, "list_hosts", list_hosts)
    monkeypatch.setattr(node_monitor, "_PERIOD_SECONDS", 0.01)
    monkeypatch.setattr(node_monitor, "_SETTLE_SECONDS", 0.05)
    return hosts


@pytest.fixture
def monitor(cluster):
    made = NodeMonitor(Request("ray", 1, 4, "cpu", "gloo", 2, 300.0, 30.0))
    yield made
    made.close()


def wait_for(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_host_that_does_not_answer_is_lost_even_if_it_answers_again(cluster, monitor):
    names = {"a": "host a", "b": "host b"}
    assert monitor.lost(names) is None
    cluster[1] = host("b", is_answering=False)
    wait_for(lambda: monitor.lost(names) == "host b")
    cluster[1] = host("b")
    time.sleep(0.05)
    assert monitor.lost(names) == "host b"


def test_a_host_that_disappears_is_lost(cluster, monitor):
    del cluster[1]
    wait_for(lambda: monitor.lost({"b": "host b"}) == "host b")
    assert monitor.lost({"a": "host a"}) is None


def test_a_drained_host_is_leaving(cluster, monitor):
    assert monitor.leaving({"a": "host a", "b": "host b"}) is None
    cluster[0] = host("a", is_leaving=True)
    wait_for(lambda: monitor.leaving({"a": "host a", "b": "host b"}) == "host a")


def test_room_for_more_workers_counts_once_it_has_lasted(cluster, monitor):
    now = Placement(2, ("a", "b"))
    held = {"a": 1, "b": 1}
    assert monitor.better(now, held) is None
    cluster.append(host("c"))
    wait_for(lambda: len(monitor.hosts) == 3)
    began = time.monotonic()
    wait_for(lambda: monitor.better(now, held) is not None)
    assert time.monotonic() - began >= 0.04
    assert monitor.better(now, held) == Placement(3, ("a", "b", "c"))


def test_a_head_that_does_not_answer_is_an_error_after_a_while(cluster, monitor, monkeypatch):
    monkeypatch.setattr(node_monitor, "HEAD_SECONDS", 0.1)
    monitor.check()
    cluster[0] = ConnectionError("no head")
    time.sleep(0.2)
    with pytest.raises(ClusterLostError, match="head has not answered"):
        monitor.check()
