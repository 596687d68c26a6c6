"""The sums behind the train events, against a naive computation."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distrib.train.loss_accumulator import CAPACITY, LossAccumulator

CPU = torch.device("cpu")

weights = st.integers(0, 20)
losses = st.floats(-100, 100, width=32)
micro_batches = st.lists(st.tuples(losses, weights), min_size=1, max_size=3)
steps = st.lists(st.tuples(micro_batches, st.booleans(), st.booleans()), min_size=1, max_size=12)


def add(ledger, is_weighted, pairs):
    for loss, weight in pairs:
        weight = torch.tensor(float(weight), dtype=torch.float64) if is_weighted else weight
        ledger.add(torch.tensor(loss), weight)
    if is_weighted:
        ledger.add_total(torch.tensor(float(sum(weight for _, weight in pairs)), dtype=torch.float64))


@given(st.booleans(), steps)
def test_sums_over_windows_and_exchanges_are_those_of_a_plain_loop(is_weighted, steps):
    """Each step is its micro-batches, whether an event is due after it and whether the ranks exchange after it."""
    ledger, expected, found = LossAccumulator(CPU, is_weighted), [], []
    open_steps, weightless, told = [], 0, 0
    for number, (pairs, is_event, is_exchange) in enumerate(steps, start=1):
        add(ledger, is_weighted, pairs)
        ledger.end_step(num_samples=10, seconds=2.0, data_seconds=0.5)
        open_steps.append(pairs)
        weightless += is_weighted and not any(weight for _, weight in pairs)
        if is_event:
            ledger.end_window(number, time=100.0 + number, learning_rate=1 / number)
            expected.append((number, len(open_steps), [pair for step in open_steps for pair in step]))
            open_steps = []
        if is_exchange:
            settled = ledger.settle(number)
            assert settled.non_finite_step is None
            found += settled.windows
            told += settled.weightless_steps
    settled = ledger.settle(len(steps))
    found += settled.windows
    assert told + settled.weightless_steps == weightless
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
    ledger = LossAccumulator(CPU, is_weighted)
    for loss in (1.0, 2.0):
        add(ledger, is_weighted, [(loss, 3)])
        ledger.end_step(3, 1.0, 0.0)
    assert ledger.settle(102).non_finite_step is None
    for loss in (1.0, bad, 2.0, bad):
        add(ledger, is_weighted, [(1.0, 1), (loss, 3)])
        ledger.end_step(3, 1.0, 0.0)
    assert ledger.settle(106).non_finite_step == 104


@pytest.mark.parametrize("is_weighted", [False, True])
def test_a_loss_without_weight_counts_for_nothing_whatever_it_is(is_weighted):
    ledger = LossAccumulator(CPU, is_weighted)
    add(ledger, is_weighted, [(math.nan, 0), (2.0, 4)])
    ledger.end_step(4, 1.0, 0.0)
    ledger.end_window(1, 0.0, 0.1)
    settled = ledger.settle(1)
    assert settled.non_finite_step is None
    assert (settled.windows[0].loss_sum, settled.windows[0].weight_sum) == (8.0, 4.0)


def test_a_full_ledger_can_be_used_again():
    ledger = LossAccumulator(CPU, is_weighted=False)
    for _ in range(2):
        for _ in range(CAPACITY):
            ledger.add(torch.tensor(1.0), 1)
            ledger.end_step(1, 0.0, 0.0)
        ledger.end_window(1, 0.0, 0.1)
        (window,) = ledger.settle(CAPACITY).windows
        assert (window.loss_sum, window.num_steps) == (CAPACITY, CAPACITY)
