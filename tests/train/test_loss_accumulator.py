"""The sums behind the train events, against a naive computation."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distrib.train.objective.loss_accumulator import CAPACITY, LossAccumulator

CPU = torch.device("cpu")

weights = st.integers(0, 20)
losses = st.floats(-100, 100, width=32)
micro_batches = st.lists(st.tuples(losses, weights), min_size=1, max_size=3)
steps = st.lists(st.tuples(micro_batches, st.booleans(), st.booleans()), min_size=1, max_size=12)


def make(is_weighted):
    losses_so_far = LossAccumulator(CPU)
    if is_weighted:
        losses_so_far.use_weights()
    return losses_so_far


def add(losses_so_far, is_weighted, pairs):
    for loss, weight in pairs:
        weight = torch.tensor(float(weight), dtype=torch.float64) if is_weighted else weight
        losses_so_far.add(torch.tensor(loss), weight)
    if is_weighted:
        losses_so_far.add_total(torch.tensor(float(sum(weight for _, weight in pairs)), dtype=torch.float64))


@given(st.booleans(), steps)
def test_sums_over_windows_and_exchanges_are_those_of_a_plain_loop(is_weighted, steps):
    """Each step is its micro-batches, whether an event is due after it and whether the ranks exchange after it."""
    losses_so_far, expected, found = make(is_weighted), [], []
    open_steps, weightless, told = [], 0, 0
    for number, (pairs, is_event, is_exchange) in enumerate(steps, start=1):
        add(losses_so_far, is_weighted, pairs)
        losses_so_far.end_step(num_samples=10, seconds=2.0, data_seconds=0.5)
        open_steps.append(pairs)
        weightless += is_weighted and not any(weight for _, weight in pairs)
        if is_event:
            losses_so_far.end_window(number, time=100.0 + number, learning_rate=1 / number)
            expected.append((number, len(open_steps), [pair for step in open_steps for pair in step]))
            open_steps = []
        if is_exchange:
            flushed = losses_so_far.flush(number)
            assert flushed.non_finite_step is None
            found += flushed.windows
            told += flushed.weightless_steps
    flushed = losses_so_far.flush(len(steps))
    found += flushed.windows
    assert told + flushed.weightless_steps == weightless
    assert len(found) == len(expected)
    for window, (number, num_steps, pairs) in zip(found, expected, strict=True):
        assert (window.step, window.num_steps, window.num_samples) == (number, num_steps, 10 * num_steps)
        assert (window.seconds, window.data_seconds) == (2.0 * num_steps, 0.5 * num_steps)
        assert (window.time, window.learning_rate) == (100.0 + number, 1 / number)
        assert window.weight_sum == sum(weight for _, weight in pairs)
        assert window.loss_sum == pytest.approx(math.fsum(loss * weight for loss, weight in pairs), abs=1e-9)


@pytest.mark.parametrize("is_weighted", [False, True])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_the_first_step_that_is_not_finite_is_found(is_weighted, bad):
    losses_so_far = make(is_weighted)
    for loss in (1.0, 2.0):
        add(losses_so_far, is_weighted, [(loss, 3)])
        losses_so_far.end_step(3, 1.0, 0.0)
    assert losses_so_far.flush(102).non_finite_step is None
    for loss in (1.0, bad, 2.0, bad):
        add(losses_so_far, is_weighted, [(1.0, 1), (loss, 3)])
        losses_so_far.end_step(3, 1.0, 0.0)
    assert losses_so_far.flush(106).non_finite_step == 104


@pytest.mark.parametrize("is_weighted", [False, True])
def test_a_loss_without_weight_does_not_count(is_weighted):
    losses_so_far = make(is_weighted)
    add(losses_so_far, is_weighted, [(math.nan, 0), (2.0, 4)])
    losses_so_far.end_step(4, 1.0, 0.0)
    losses_so_far.end_window(1, 0.0, 0.1)
    flushed = losses_so_far.flush(1)
    assert flushed.non_finite_step is None
    assert (flushed.windows[0].loss_sum, flushed.windows[0].weight_sum) == (8.0, 4.0)


def test_a_full_accumulator_can_be_used_again():
    losses_so_far = make(is_weighted=False)
    for _ in range(2):
        for _ in range(CAPACITY):
            losses_so_far.add(torch.tensor(1.0), 1)
            losses_so_far.end_step(1, 0.0, 0.0)
        losses_so_far.end_window(1, 0.0, 0.1)
        (window,) = losses_so_far.flush(CAPACITY).windows
        assert (window.loss_sum, window.num_steps) == (CAPACITY, CAPACITY)


@pytest.mark.parametrize("is_weighted", [False, True])
def test_a_window_can_end_after_its_last_step_was_flushed(is_weighted):
    losses_so_far = make(is_weighted)
    for loss in (1.0, 2.0):
        add(losses_so_far, is_weighted, [(loss, 3)])
        losses_so_far.end_step(3, 1.0, 0.0)
    assert losses_so_far.flush(2).windows == []
    losses_so_far.end_window(2, 0.0, 0.1)
    (window,) = losses_so_far.flush(2).windows
    assert (window.step, window.num_steps, window.loss_sum, window.weight_sum) == (2, 2, 9.0, 6.0)
    assert losses_so_far.state_dict()["sums"] == [0.0, 0.0]


def test_an_open_window_continues_on_other_ranks_with_the_same_total():
    ranks = [make(is_weighted=False) for _ in range(3)]
    for number, one in enumerate(ranks):
        one.add(torch.tensor(float(number)), 2)
        one.end_step(6, seconds=1.0, data_seconds=0.25)
        one.flush(1)
    states = [one.state_dict() for one in ranks]
    resumed = [make(is_weighted=False) for _ in range(2)]
    for rank, one in enumerate(resumed):
        one.load_state_dict(one.merge_ranks(states, rank, 2))
        one.add(torch.tensor(10.0), 3)
        one.end_step(6, seconds=1.0, data_seconds=0.25)
        one.end_window(2, 0.0, 0.1)
    (first,), (second,) = (one.flush(2).windows for one in resumed)
    assert first.loss_sum + second.loss_sum == 2 * (0 + 1 + 2) + 2 * 30
    assert first.weight_sum + second.weight_sum == 6 + 6
    assert (first.num_steps, first.num_samples, first.seconds, first.data_seconds) == (2, 12, 2.0, 0.5)
