"""A rank that is persistently slower than the others is named once, with what it is slow at; healthy runs are not."""

import random
from collections import Counter

import pytest

from distrib.train.health.stragglers import StragglerWatch
from distrib.train.health.times import MeanTimes

LOG_EVERY = 10


def mean_times(steps):
    """The means over steps, each (data, compute) seconds."""
    count = len(steps)
    data, compute = (sum(column) / count for column in zip(*steps, strict=True))
    return MeanTimes(data, compute, 0.0, sum((d + c) ** 2 for d, c in steps) / count)


def follow(step_of, *, world_size=3, num_steps=1000, batch_sizes=(24,), log_every=LOG_EVERY):
    """Runs steps; `step_of(rank, number)` gives (data, compute) seconds. Returns the warnings, each with its step.

    The sizes of global batches repeat in the order of `batch_sizes`.
    """
    watch = StragglerWatch([f"node{rank}" for rank in range(world_size)], 2)
    found = []
    for first in range(0, num_steps, log_every):
        ranks = [[step_of(rank, first + i) for i in range(log_every)] for rank in range(world_size)]
        longest = sum(max(sum(steps[i]) for steps in ranks) for i in range(log_every)) / log_every
        sizes = Counter(batch_sizes[(first + i) % len(batch_sizes)] for i in range(log_every))
        warnings = watch.observe([mean_times(steps) for steps in ranks], sizes, longest)
        found += [(first + log_every, warning) for warning in warnings]
    return found


@pytest.mark.parametrize("world_size", [2, 3, 8])
def test_a_rank_that_computes_slowly_is_named_once(world_size):
    generator = random.Random(0)
    found = follow(
        lambda rank, _: (0.01, generator.uniform(0.9, 1.1) * (0.4 if rank == 1 else 0.2)), world_size=world_size
    )
    ((step, warning),) = found
    assert step <= 60
    assert warning.fields == {"rank": 1, "host": "node1", "slow_at": "compute"}
    assert "rank 1 on node1 delays the others" in warning.message
    assert "slow at computing" in warning.message


def test_a_rank_that_waits_for_its_data_is_named_with_it():
    ((_, warning),) = follow(lambda rank, _: (0.3 if rank == 2 else 0.01, 0.2))
    assert warning.fields == {"rank": 2, "host": "node2", "slow_at": "data"}
    assert "slow at waiting for its data" in warning.message


@pytest.mark.parametrize("log_every", [1, 10])
@pytest.mark.parametrize("world_size", [2, 3, 8])
@pytest.mark.parametrize(
    "draw",
    [
        lambda generator: generator.uniform(0.05, 0.5),
        lambda generator: 0.5 if generator.random() < 0.1 else 0.05,
        lambda generator: 0.2 * generator.lognormvariate(0, 1),
    ],
    ids=["uniform", "rarely slow", "log-normal"],
)
def test_steps_that_vary_tenfold_raise_no_alarm(draw, world_size, log_every):
    for seed in range(10):
        generator = random.Random(seed)
        assert not follow(lambda *_, g=generator: (0.001, draw(g)), world_size=world_size, log_every=log_every)


def test_a_slow_rank_is_found_among_steps_that_vary_tenfold():
    generator = random.Random(0)
    found = follow(
        lambda rank, _: (0.0, generator.uniform(0.05, 0.5) * (2 if rank == 0 else 1)), num_steps=3000, world_size=4
    )
    assert [warning.fields["rank"] for _, warning in found] == [0]


def test_what_is_slow_for_a_while_is_not_a_straggler():
    assert not follow(lambda rank, number: (0.0, 0.6 if rank == 1 and number % 100 < 30 else 0.2))


def test_a_rank_with_more_samples_may_take_longer():
    assert not follow(lambda rank, _: (0.0, 0.4 if rank == 1 else 0.2), world_size=2, batch_sizes=[3])
    assert follow(lambda rank, _: (0.0, 0.4 if rank == 1 else 0.2), world_size=2)


def test_batches_of_varying_sizes_are_split_step_by_step():
    """With 64, 3 and 1 samples in turn, rank 1 has 35 of 68; with 3 and 1 it has twice as many as rank 0."""
    slow = {True: (0.0, 0.4), False: (0.0, 0.2)}
    assert follow(lambda rank, _: slow[rank == 1], world_size=2, batch_sizes=[64, 3, 1])
    assert not follow(lambda rank, _: slow[rank == 1], world_size=2, batch_sizes=[3, 1])
    assert follow(lambda rank, _: slow[rank == 0], world_size=2, batch_sizes=[3, 1])


def test_a_slow_rank_that_delays_nobody_is_not_reported():
    watch = StragglerWatch(["a", "b"], 0)
    ranks = [mean_times([(0.0, 0.01)]), mean_times([(0.0, 0.02)])]
    assert not [warning for _ in range(100) for warning in watch.observe(ranks, {16: 10}, 1.0)]


@pytest.mark.parametrize("world_size", [1, 3])
def test_a_dataset_that_starves_all_ranks_is_reported_once(world_size):
    ((_, warning),) = follow(lambda *_: (0.3, 0.1), world_size=world_size)
    assert "the ranks wait for data 75 % of the time" in warning.message
    assert "raise data.loader_workers (now 2)" in warning.message


def test_fast_steps_are_compared_for_long_enough():
    """A thousand steps of a millisecond are over before anything can be called persistent."""
    assert not follow(lambda rank, _: (0.0, 0.003 if rank else 0.001))


def test_intervals_that_were_not_measured_are_left_out():
    watch = StragglerWatch(["a", "b"], 0)
    ranks = [MeanTimes(), MeanTimes(0.0, 0.5, 0.0, 0.25)]
    assert not [warning for _ in range(100) for warning in watch.observe(ranks, {16: 10}, 1.0)]
