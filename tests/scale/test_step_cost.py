"""The cost formulas against closed forms and properties."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distrib.scale.all_reduce import Link, Network, Topology, ring_seconds, tree_seconds
from distrib.scale.measurement import GradientBucket
from distrib.scale.step_cost import Workload, expected_straggling, exposed_seconds, smallest_batch, step_cost

LINK = Link(1e-5, 8e-9)
links = st.builds(Link, st.floats(0, 1e-2), st.floats(0, 1e-6))
sizes = st.floats(0, 1e9)
workers = st.integers(1, 1024)
algorithms = st.sampled_from(["ring", "tree", "hierarchical", "best"])
buckets = st.lists(st.builds(GradientBucket, sizes, st.floats(0, 1)), max_size=8)


def test_ring_and_tree_are_the_published_formulas():
    assert ring_seconds(1e6, 4, LINK) == pytest.approx(6 * 1e-5 + 1.5 * 1e6 * 8e-9)
    assert tree_seconds(1e6, 8, LINK) == pytest.approx(6 * 1e-5 + 2 * 1e6 * 8e-9)
    assert ring_seconds(1e6, 1, LINK) == tree_seconds(1e6, 1, LINK) == 0


def test_a_ring_over_hosts_waits_for_the_slower_link():
    network = Network(intra=Link(1e-6, 1e-11), inter=LINK)
    assert network.all_reduce_seconds(1e6, Topology(8, 4)) == pytest.approx(ring_seconds(1e6, 8, LINK))
    assert network.all_reduce_seconds(1e6, Topology(4, 4)) == pytest.approx(ring_seconds(1e6, 4, network.intra))


def test_two_levels_send_few_messages_between_hosts():
    slow_to_start = Network(intra=Link(0, 1e-11), inter=Link(1e-3, 0), algorithm="hierarchical")
    assert slow_to_start.all_reduce_seconds(1.0, Topology(64, 8)) == pytest.approx(2 * 7 * 1e-3, rel=1e-3)


@given(algorithms, links, links, sizes, sizes, workers, st.integers(1, 8))
def test_more_bytes_never_cost_less(algorithm, intra, inter, one, other, count, per_host):
    network, topology = Network(intra, inter, algorithm), Topology(count, per_host)
    low, high = sorted((one, other))
    assert network.all_reduce_seconds(low, topology) <= network.all_reduce_seconds(high, topology) * (1 + 1e-9)


@given(st.sampled_from([ring_seconds, tree_seconds]), links, sizes, workers, workers)
def test_more_workers_never_cost_less(cost, link, size, one, other):
    low, high = sorted((one, other))
    assert cost(size, low, link) <= cost(size, high, link) * (1 + 1e-9)


@given(buckets, st.floats(0, 10), links, workers)
def test_what_is_exposed_lies_between_the_last_bucket_and_all_of_them(found, compute, link, count):
    cost = lambda size: ring_seconds(size, count, link)  # noqa: E731
    exposed = exposed_seconds(found, compute, cost)
    total = sum(cost(bucket.num_bytes) for bucket in found)
    assert 0 <= exposed <= total * (1 + 1e-9) + 1e-9
    if found and found[-1].ready_fraction == 1:
        assert exposed >= cost(found[-1].num_bytes) * (1 - 1e-9) - 1e-9


def test_only_the_last_bucket_is_exposed_where_the_backward_pass_is_long():
    found = [GradientBucket(1e6, fraction) for fraction in (0.4, 0.6, 0.8, 1.0)]
    assert exposed_seconds(found, 1.0, lambda size: 0.1) == pytest.approx(0.1)
    assert exposed_seconds(found, 0.1, lambda size: 0.1) == pytest.approx(0.34)


def test_accumulation_and_compression_spare_communication():
    workload = Workload(0.0, 0.0, 0.001, 0.0, [GradientBucket(1e8, 1.0)])
    network = Network(LINK, LINK)
    plain = step_cost(workload, network, Topology(4), 32)
    halved = step_cost(workload, network, Topology(4), 32, compression=0.5)
    twice = step_cost(workload, network, Topology(4), 32, accumulate=2)
    assert plain.communication > plain.compute
    assert halved.communication == pytest.approx(plain.communication / 2, rel=1e-3)
    assert (twice.compute, twice.communication) == (2 * plain.compute, plain.communication)


@given(st.floats(0, 0.5), workers)
def test_a_worker_alone_waits_for_nobody(deviation, count):
    assert expected_straggling(deviation, 1) == 0
    assert expected_straggling(deviation, count) <= deviation * math.sqrt(2 * math.log(1024))


def test_the_smallest_batch_that_reaches_a_goal():
    assert smallest_batch(lambda batch: batch / (batch + 100), 0.9, 1) == pytest.approx(900, rel=0.02)
    assert smallest_batch(lambda batch: 0.5, 0.9, 1) is None
    assert smallest_batch(lambda batch: 1.0, 0.9, 64) == 64
