"""Orders of the job's own: what they may return, what is refused, and what the plan knows of them."""

import itertools

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distrib.train.data.order import RecentEpochs, Sequential
from distrib.train.data.target_order import OrderError, TargetOrder, read_batches

DATASET = range(10)


def make(function, batch_size=4, epochs=3, steps=None, dataset=DATASET, seed=0):
    length = (None if steps else epochs, steps)
    return TargetOrder(function, "m:f", dataset, batch_size=batch_size, seed=seed, train_length=length)


def lists(order, epoch):
    return [order.batch(epoch, step).tolist() for step in range(order.num_steps(epoch))]


class Growing:
    """Each epoch has one more batch than the one before."""

    def __call__(self, dataset, epoch, seed):
        return [[epoch, number] for number in range(epoch + 1)]

    def num_steps(self, dataset, epoch, seed):
        return epoch + 1


@given(st.integers(1, 60), st.integers(1, 20))
def test_sequential_is_the_order_of_the_dataset(length, batch_size):
    order = Sequential(length, batch_size)
    batches = lists(order, 3)
    assert list(itertools.chain(*batches)) == list(range(length))
    assert {len(batch) for batch in batches[:-1]} <= {batch_size}


@pytest.mark.parametrize(
    "result",
    [
        [3, 3, 9, 0, 1],
        (3, 3, 9, 0, 1),
        numpy.array([3, 3, 9, 0, 1]),
        torch.tensor([3, 3, 9, 0, 1], dtype=torch.int32),
        iter([3, 3, 9, 0, 1]),
        [numpy.int64(3), 3, torch.tensor(9), 0, 1],
    ],
    ids=lambda result: type(result).__name__,
)
def test_indices_are_cut_into_batches(result):
    order = make(lambda dataset, epoch, seed: result)
    assert lists(order, 0) == [[3, 3, 9, 0], [1]]
    assert (order.facts.samples, order.facts.num_steps, order.facts.batch_sizes) == (5, (2,), None)


@pytest.mark.parametrize(
    "result",
    [[[1, 2], [3], [4, 5, 6, 7, 8]], [range(1, 3), torch.tensor([3]), numpy.arange(4, 9)]],
)
def test_lists_are_the_batches_whatever_the_batch_size(result):
    order = make(lambda dataset, epoch, seed: result, batch_size=2)
    assert lists(order, 0) == [[1, 2], [3], [4, 5, 6, 7, 8]]
    assert order.facts.batch_sizes == (1, 5, 5)
    assert (order.facts.samples, order.facts.num_steps) == (8, (3,))


def test_a_two_dimensional_tensor_has_a_batch_in_each_row():
    assert lists(make(lambda *_: torch.arange(6).reshape(3, 2)), 0) == [[0, 1], [2, 3], [4, 5]]


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ([], "epoch 0 is empty"),
        (torch.empty(0, dtype=torch.int64), "epoch 0 is empty"),
        ([[1], []], "batch 1 of epoch 0 is empty"),
        ([[], [1]], "batch 0 of epoch 0 is empty"),
        ([1, 10], "m:f gave index 10 in epoch 0; the dataset has 10 samples, 0 to 9"),
        ([[1], [-1]], "m:f gave index -1 in epoch 0"),
        ([1.0, 2.0], "epoch 0 has 1.0 among its indices, which are integers"),
        ([True, False], "epoch 0 has True among its indices"),
        ([1, "2"], "epoch 0 has '2' among its indices"),
        ([1, None], "epoch 0 has None among its indices"),
        ([1, [2]], r"epoch 0 has \[2\] among its indices"),
        ([[1], 2], "batch 1 of epoch 0 is a int, not indices"),
        ([[[1]]], r"batch 0 of epoch 0 has \[1\] among its indices"),
        (None, "epoch 0 is a NoneType, not indices or lists of indices"),
        ("123", "epoch 0 is a str, not indices"),
        (7, "epoch 0 is a int, not indices"),
        (torch.tensor(7), "epoch 0 is a single number, not a list of indices"),
    ],
)
def test_what_is_no_order_is_refused(result, message):
    with pytest.raises(OrderError, match=f"^data.order: {message}"):
        _ = make(lambda dataset, epoch, seed: result).facts


def test_steps_that_differ_need_num_steps():
    order = make(lambda dataset, epoch, seed: list(range(4 * (epoch + 1))), dataset=range(100))
    assert order.num_steps(2) == 1
    with pytest.raises(OrderError, match=r"gave 2 steps in epoch 1 and 1 in epoch 0; .* num_steps\(dataset, epoch"):
        order.batch(1, 0)


def test_epochs_may_differ_in_steps_with_num_steps():
    order = make(Growing(), epochs=4)
    assert order.facts.may_differ
    assert order.facts.num_steps == (1, 2, 3, 4)
    assert lists(order, 2) == [[2, 0], [2, 1], [2, 2]]
    assert make(Growing(), steps=8).facts.num_steps == (1, 2, 3, 4)
    assert make(Growing(), steps=6).facts.num_steps == (1, 2, 3)


@pytest.mark.parametrize("count", [0, -1, 2.0, None])
def test_num_steps_is_a_number_of_steps(count):
    growing = Growing()
    growing.num_steps = lambda *_: count
    with pytest.raises(OrderError, match=f"num_steps of m:f gave {count!r} for epoch 0"):
        _ = make(growing).facts


def test_num_steps_and_the_order_agree():
    growing = Growing()
    growing.num_steps = lambda *_: 1
    order = make(growing)
    assert order.facts.num_steps == (1, 1, 1)
    with pytest.raises(OrderError, match="gave 2 steps in epoch 1, but its num_steps says 1"):
        order.batch(1, 0)


def test_two_epochs_are_kept_and_each_is_computed_once_on_the_way():
    calls = []
    order = make(lambda dataset, epoch, seed: calls.append(epoch) or list(dataset))
    for epoch, step in ((0, 0), (0, 2), (1, 0), (0, 2), (1, 1), (2, 0), (1, 2)):
        order.batch(epoch, step)
    assert calls == [0, 1, 2]


def test_digests_differ_between_orders_and_plans():
    def digest(function, **changes):
        return make(function, **changes).digest(1)

    same = digest(lambda *_: [1, 2, 3])
    assert digest(lambda *_: torch.tensor([1, 2, 3])) == same
    others = [
        lambda *_: [1, 3, 2],
        lambda *_: [[1, 2, 3]],
        lambda *_: [1, 2, 3, 3],
        lambda _, e, s: [1, 2, 3] + [3] * (1 - e),
    ]
    assert len({same, *map(digest, others)}) == 5
    assert float(same) == same < 2**53


def test_even_global_generators_give_the_same_order_each_time():
    orders = [make(lambda dataset, epoch, seed: torch.randperm(10)) for _ in range(2)]
    torch.rand(7)
    assert lists(orders[0], 1) == lists(orders[1], 1) != lists(orders[0], 2)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=40), st.integers(1, 12))
def test_batches_hold_the_indices_in_order(indices, batch_size):
    found = read_batches(indices, batch_size, "epoch 0")
    batches = [found.batch(step).tolist() for step in range(len(found.ends))]
    assert list(itertools.chain(*batches)) == indices
    assert [len(batch) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
    assert found.sizes.tolist() == [len(batch) for batch in batches]


def test_num_steps_may_be_an_integer_of_numpy():
    growing = Growing()
    growing.num_steps = lambda dataset, epoch, seed: numpy.int64(epoch + 1)
    assert make(growing).facts.num_steps == (1, 2, 3)


def test_an_epoch_is_computed_once_however_far_ahead_batches_are_fetched():
    """As by loader workers that are several short epochs ahead when the ranks compare their orders."""
    computed = []
    kept = RecentEpochs(lambda epoch: computed.append(epoch) or [0] * 100, len)
    for epoch in range(60):
        kept[epoch + 8], kept[epoch]
    assert sorted(computed) == sorted(set(computed))


def test_of_long_epochs_the_last_two_used_are_kept():
    computed = []
    kept = RecentEpochs(lambda epoch: computed.append(epoch) or range(2**24), len)
    for epoch in (0, 1, 0, 2, 0, 1):
        kept[epoch]
    assert computed == [0, 1, 2, 1]
