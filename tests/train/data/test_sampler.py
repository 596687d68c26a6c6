"""The order of samples, against the contract's definition computed naively."""

import pickle

import torch
from exact_reference import part, permutation
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

import distrib.train.data.order as order_module
from distrib.train.data.order import Shuffle
from distrib.train.data.permutation import epoch_permutation
from distrib.train.data.sampler import EpochIndices, GlobalBatchSampler, SamplerOfRun

lengths = st.integers(1, 70)
batch_sizes = st.integers(1, 30)
world_sizes = st.integers(1, 9)
epochs = st.integers(0, 5)
seeds = st.integers(0, 2**63 - 1)
accumulates = st.integers(1, 5)


def make(length, batch_size, world_size, rank, seed, accumulate=1):
    order = Shuffle(length, batch_size, seed)
    return GlobalBatchSampler(range(length), order, num_replicas=world_size, rank=rank, accumulate=accumulate)


def num_steps(sampler):
    return sampler.order.num_steps(0)


def rank_slice(sampler, epoch, step):
    """The samples of a rank in a step that count."""
    parts = sampler.micro_batches(epoch, step)
    return [index for part in parts if part.num_samples for index in part.indices]


def naive_micro_batches(batch, rank, world_size, accumulate):
    """(indices, number that count) of each micro-batch of a rank, by the contract."""
    mine = part(batch, rank, world_size)
    if not mine:
        return [(batch[:1], 0)]
    parts = [part(mine, number, accumulate) for number in range(accumulate)]
    return [(indices, len(indices)) for indices in parts if indices]


def as_pairs(micro_batches):
    return [(list(micro_batch.indices), micro_batch.num_samples) for micro_batch in micro_batches]


@given(lengths, seeds, epochs)
def test_the_order_of_an_epoch_is_that_of_the_contract(length, seed, epoch):
    assert epoch_permutation(length, seed, epoch).tolist() == permutation(length, seed, epoch)


def test_the_order_never_changes():
    assert epoch_permutation(10, seed=0, epoch=0).tolist() == [7, 5, 1, 2, 4, 8, 3, 0, 6, 9]
    assert epoch_permutation(10, seed=0, epoch=1).tolist() != epoch_permutation(10, seed=0, epoch=0).tolist()


@settings(deadline=None)  # the first example may load modules, which takes long on a busy machine
@given(lengths, batch_sizes, world_sizes, epochs, seeds)
def test_the_slices_of_all_ranks_are_the_permutation_each_sample_once(length, batch_size, world_size, epoch, seed):
    samplers = [make(length, batch_size, world_size, rank, seed) for rank in range(world_size)]
    seen = []
    for step in range(num_steps(samplers[0])):
        slices = [rank_slice(sampler, epoch, step) for sampler in samplers]
        assert max(map(len, slices)) - min(map(len, slices)) <= 1
        seen += [index for piece in slices for index in piece]
    assert seen == permutation(length, seed, epoch)


@given(lengths, batch_sizes, world_sizes, epochs, seeds, accumulates)
def test_every_micro_batch_is_that_of_the_contract(length, batch_size, world_size, epoch, seed, accumulate):
    order = permutation(length, seed, epoch)
    starts = range(0, length, batch_size)
    for rank in range(world_size):
        sampler = make(length, batch_size, world_size, rank, seed, accumulate)
        assert num_steps(sampler) == len(starts)
        for step, start in enumerate(starts):
            batch = order[start : start + batch_size]
            micro_batches = sampler.micro_batches(epoch, step)
            assert as_pairs(micro_batches) == naive_micro_batches(batch, rank, world_size, accumulate)
            assert {micro_batch.global_batch_size for micro_batch in micro_batches} == {len(batch)}
            assert all(micro_batch.indices.epoch == epoch for micro_batch in micro_batches)


@given(lengths, batch_sizes, world_sizes, epochs, accumulates, st.data())
def test_micro_batches_partition_the_slice_and_none_is_empty(length, batch_size, world_size, epoch, accumulate, data):
    sampler = make(length, batch_size, world_size, data.draw(st.integers(0, world_size - 1)), 0, accumulate)
    step = data.draw(st.integers(0, num_steps(sampler) - 1))
    micro_batches, mine = sampler.micro_batches(epoch, step), rank_slice(sampler, epoch, step)
    assert 1 <= len(micro_batches) <= accumulate
    assert all(micro_batch.indices for micro_batch in micro_batches)
    assert sum(micro_batch.num_samples for micro_batch in micro_batches) == len(mine)
    if mine:
        assert [index for micro_batch in micro_batches for index in micro_batch.indices] == mine


@given(lengths, batch_sizes, world_sizes, accumulates, st.integers(0, 20), st.integers(0, 20), st.data())
def test_a_run_continues_exactly_from_any_step(length, batch_size, world_size, accumulate, first, more, data):
    rank = data.draw(st.integers(0, world_size - 1))
    sampler = make(length, batch_size, world_size, rank, 0, accumulate)
    whole = []
    for global_step in range(first + more):
        epoch, step = divmod(global_step, num_steps(sampler))
        whole.append([list(micro_batch.indices) for micro_batch in sampler.micro_batches(epoch, step)])
    rest = [indices for step in whole[first:] for indices in step]
    fresh = make(length, batch_size, world_size, rank, 0, accumulate)
    steps_per_epoch = num_steps(fresh)
    continued = list(SamplerOfRun(fresh, lambda step: divmod(step, steps_per_epoch), first, first + more))
    assert [list(micro_batch.indices) for micro_batch in continued] == rest
    steps = [micro_batch.global_step for micro_batch in continued if micro_batch.is_last]
    assert steps == list(range(first, first + more))
    assert [micro_batch.global_step for micro_batch in continued] == [
        number for number, step in enumerate(whole[first:], first) for _ in step
    ]


def test_a_rank_without_samples_gets_the_first_of_the_batch_as_a_stand_in():
    for rank, pairs in enumerate(([([7], 0)], [([7], 1)], [([3], 1)])):
        sampler = make(10, 4, 3, rank, seed=0, accumulate=2)
        sampler.order._permutations._kept[0] = torch.tensor([0, 1, 2, 4, 5, 6, 8, 9, 7, 3])
        assert as_pairs(sampler.micro_batches(0, step=2)) == pairs


@settings(max_examples=20)
@given(st.integers(1, 40), batch_sizes, world_sizes, epochs, accumulates)
def test_it_serves_a_plain_data_loader_as_batch_sampler(length, batch_size, world_size, epoch, accumulate):
    values = torch.arange(length) * 10
    for rank in range(world_size):
        sampler = make(length, batch_size, world_size, rank, 0, accumulate)
        sampler.set_epoch(epoch)
        loader = DataLoader(values, batch_sampler=sampler)
        expected = [
            [10 * index for index in micro_batch.indices]
            for step in range(num_steps(sampler))
            for micro_batch in sampler.micro_batches(epoch, step)
        ]
        assert [batch.tolist() for batch in loader] == expected
        assert len(loader) == len(sampler) == len(expected)


def test_the_next_epoch_can_be_fetched_ahead_without_computing_this_one_again(monkeypatch):
    computed = []
    original = order_module.epoch_permutation
    monkeypatch.setattr(
        order_module, "epoch_permutation", lambda *arguments: computed.append(arguments[2]) or original(*arguments)
    )
    sampler = make(20, 6, 2, 1, seed=5)
    for epoch, step in ((0, 3), (1, 0), (0, 3), (1, 1), (2, 0), (1, 3), (2, 1)):
        sampler.micro_batches(epoch, step)
    assert computed == [0, 1, 2]


def test_going_back_to_an_earlier_epoch_gives_the_same():
    sampler = make(20, 6, 2, 1, seed=5)
    before = rank_slice(sampler, 0, 1)
    assert rank_slice(sampler, 1, 1) != before
    assert rank_slice(sampler, 0, 1) == before


@given(st.lists(st.integers(0, 2**40)), epochs)
def test_indices_travel_to_loader_workers_with_their_epoch(indices, epoch):
    arrived = pickle.loads(pickle.dumps(EpochIndices(indices, epoch)))
    assert (type(arrived), list(arrived), arrived.epoch) == (EpochIndices, indices, epoch)
