"""Where workers go: pure placement over hosts as Ray and their raylets describe them."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distrib.job.plan import Request
from distrib.launch.launcher import Placement
from distrib.launch.ray.cluster.placement import ClusterHost, place


def request(low, high=None, **changes):
    made = Request("ray", low, high or low, "cpu", "gloo", 2, 300.0, 30.0)
    return replace(made, **changes)


def host(name, cpus=4.0, free=None, **changes):
    total = {"CPU": cpus, **changes.pop("extra", {})}
    made = ClusterHost(name, name, "10.0.0.1", 1, total, {**total, "CPU": cpus if free is None else free})
    return replace(made, **changes)


def test_as_many_workers_as_fit_and_are_wanted():
    hosts = [host("a"), host("b", cpus=3.0)]
    assert place(hosts, request(1, 8)) == Placement(3, ("a", "b"))
    assert place(hosts, request(1, 2)) == Placement(2, ("a", "b"))
    assert place(hosts, request(4)) is None


def test_strict_spread_puts_one_on_each_host_and_strict_pack_all_on_one():
    hosts = [host("a"), host("b", cpus=8.0), host("full", free=1.0)]
    assert place(hosts, request(1, 9, placement="strict_spread")) == Placement(2, ("a", "b"))
    assert place(hosts, request(3, placement="strict_spread")) is None
    assert place(hosts, request(4, placement="strict_pack")) == Placement(4, ("b",))
    assert place(hosts, request(5, placement="strict_pack")) is None


@pytest.mark.parametrize("gone", [{"is_leaving": True}, {"is_answering": False}, {"labels": {"zone": "b"}}])
def test_a_host_that_leaves_or_does_not_answer_or_lacks_a_label_gets_none(gone):
    hosts = [host("a", labels={"zone": "a"}), replace(host("b", labels={"zone": "a"}), **gone)]
    assert place(hosts, request(2, labels={"zone": "a"})) == Placement(2, ("a",))
    assert place(hosts, request(3, labels={"zone": "a"})) is None


@pytest.mark.parametrize(
    ("condition", "is_met"), [("a", True), ("!a", False), ("in(a, b)", True), ("in(b)", False), ("!in(b,c)", True)]
)
def test_labels_in_the_syntax_of_ray(condition, is_met):
    found = place([host("h", labels={"zone": "a"})], request(1, labels={"zone": condition}))
    assert (found is not None) == is_met


def test_what_this_run_holds_itself_counts_as_free_and_what_others_hold_only_when_the_cluster_is_thought_empty():
    hosts = [host("a", free=0.0)]
    assert place(hosts, request(1)) is None
    assert place(hosts, request(1, 9), {"a": 1}) == Placement(1, ("a",))
    assert place(hosts, request(2), is_empty=True) == Placement(2, ("a",))


def test_workers_that_are_gone_already_are_not_counted_twice():
    assert place([host("a", cpus=2.0), host("b", cpus=2.0)], request(1, 9), {"a": 1}) == Placement(2, ("a", "b"))


def test_every_resource_that_is_asked_for_limits():
    wanted = request(1, 9, device="cuda", memory_bytes=2**30, accelerator="H100")
    rich = host("a", cpus=64.0, extra={"GPU": 8.0, "memory": 3.0 * 2**30, "accelerator_type:H100": 1.0})
    assert place([rich], wanted) == Placement(3, ("a",))
    assert place([host("b", cpus=64.0, extra={"GPU": 8.0, "memory": 9.0 * 2**30})], wanted) is None


@given(st.lists(st.integers(0, 9), max_size=6), st.integers(1, 6), st.integers(0, 6))
def test_a_placement_is_within_bounds_and_within_the_room_of_its_hosts(cpus, low, more):
    hosts = [host(str(number), cpus=float(count)) for number, count in enumerate(cpus)]
    found = place(hosts, request(low, low + more))
    room = sum(count // 2 for count in cpus)
    if room < low:
        assert found is None
    else:
        assert found.world_size == min(low + more, room)
        assert set(found.node_ids) == {str(number) for number, count in enumerate(cpus) if count >= 2}


def test_workers_start_anew_in_place_only_where_their_hosts_are_still_there_and_as_many_are_wanted():
    assert Placement(2, ("a", "b")).allows(Placement(2, ("a", "b", "c")))
    assert not Placement(2, ("a", "b")).allows(Placement(2, ("a", "c")))
    assert not Placement(2, ("a", "b")).allows(Placement(3, ("a", "b", "c")))
    assert Placement(2).allows(Placement(2))
