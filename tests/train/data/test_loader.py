"""Fetching: the augmentation of a sample depends on nothing but seed, epoch and index."""

from types import SimpleNamespace

import pytest
import torch
from exact_jobs import Augmented
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import TensorDataset, default_collate

from distrib.train.data.loader import Fetcher, SampleError, StepLoader, iterate
from distrib.train.data.order import Sequential
from distrib.train.data.sampler import EpochIndices, GlobalBatchSampler, MicroBatch

index_lists = st.lists(st.integers(0, 19), min_size=1, max_size=6)


def rows(fetcher, indices, epoch=0):
    inputs, _ = fetcher.__getitems__(EpochIndices(indices, epoch))
    return dict(zip(indices, inputs.tolist(), strict=True))


@given(index_lists, index_lists)
def test_a_sample_is_the_same_whatever_it_is_fetched_with(some, others):
    fetcher = Fetcher(Augmented(20), None, seed=4)
    first, second = rows(fetcher, some), rows(fetcher, others)
    assert all(first[index] == second[index] for index in first.keys() & second.keys())


@pytest.mark.parametrize(("seed", "epoch"), [(4, 1), (5, 0)])
def test_another_epoch_or_seed_augments_otherwise(seed, epoch):
    original = rows(Fetcher(Augmented(20), None, 4), range(20))
    others = rows(Fetcher(Augmented(20), None, seed), range(20), epoch)
    assert all(original[index] != others[index] for index in range(20))


class Batched(Augmented):
    """A dataset that fetches whole batches."""

    def __getitems__(self, indices):
        return [self[index] for index in indices]


def test_a_dataset_of_whole_batches_is_seeded_by_the_batch():
    fetcher = Fetcher(Batched(20), None, seed=4)
    assert rows(fetcher, [3, 5]) == rows(fetcher, [3, 5])
    assert rows(fetcher, [3, 5]) != rows(fetcher, [3, 5], epoch=1)


class Exhausted(Augmented):
    """Reads ahead from an iterator."""

    def __getitem__(self, index):
        return next(iter(()))


def test_an_exhausted_iterator_in_a_dataset_is_named():
    with pytest.raises(SampleError, match=r"StopIteration for sample 7 \(.*test_loader\.py:\d+\); an iterator that it"):
        Fetcher(Exhausted(20), None, seed=4).__getitems__(EpochIndices([7], 0))


def test_a_tensor_dataset_is_fetched_as_a_whole_and_gives_the_same():
    dataset = TensorDataset(torch.arange(10.0).view(10, 1), torch.arange(10))
    whole = Fetcher(dataset, None, seed=0)
    assert whole.is_whole
    fetched, one_by_one = whole.__getitems__(EpochIndices([7, 2], 0)), default_collate([dataset[7], dataset[2]])
    assert [type(fetched), type(one_by_one)] == [list, list]
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(fetched, one_by_one, strict=True))


def test_a_tensor_dataset_with_its_own_items_or_collate_is_not():
    class Shifted(TensorDataset):
        def __getitem__(self, index):
            return tuple(tensor + 1 for tensor in super().__getitem__(index))

    tensors = torch.arange(10.0).view(10, 1), torch.arange(10)
    shifted = Fetcher(Shifted(*tensors), None, seed=0)
    assert not shifted.is_whole
    assert shifted.__getitems__(EpochIndices([3], 0))[1].tolist() == [4]
    assert Fetcher(TensorDataset(*tensors), lambda items: len(items), 0).__getitems__(EpochIndices([1, 2], 0)) == 2


@pytest.mark.timeout(60)
def test_loader_workers_give_the_same_batches_in_order():
    fetcher = Fetcher(Augmented(20), None, seed=4)
    lists = [EpochIndices([index, (index + 7) % 20], epoch) for epoch in (0, 1) for index in range(0, 20, 3)]
    parts = [MicroBatch(indices, len(indices), number) for number, indices in enumerate(lists)]
    plain = [(part, inputs.tolist()) for part, (inputs, _) in iterate(fetcher, parts, 0, pin_memory=False)]
    assert [part for part, _ in plain] == parts
    loaded = [(part, inputs.tolist()) for part, (inputs, _) in iterate(fetcher, parts, 2, pin_memory=False)]
    assert loaded == plain
    assert [part.indices.epoch for part, _ in loaded] == [indices.epoch for indices in lists]


@pytest.mark.parametrize(
    ("dataset", "fetched"),
    [
        # Rows of tensors are fetched while the rank waits, but not those of the next epoch.
        (TensorDataset(torch.arange(6)), [(0, 2), (1, 3), (2, 3), (3, 5), (4, 6), (5, 6)]),
        # What runs code of the job is fetched when it is needed.
        (Augmented(6), [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 6)]),
    ],
)
def test_rows_of_tensors_are_fetched_while_the_rank_waits(dataset, fetched):
    seen = []

    class Counting(Fetcher):
        def __getitems__(self, indices):
            seen.append(list(indices))
            return super().__getitems__(indices)

    plan = SimpleNamespace(total_steps=6, position=lambda step: divmod(step, 3))
    sampler = GlobalBatchSampler(dataset, Sequential(6, 2), num_replicas=1, rank=0)
    check = SimpleNamespace(begin_step=lambda epoch: None)
    loader = StepLoader(Counting(dataset, None, seed=0), sampler, plan, torch.device("cpu"), 0, 0, check)
    found = []
    for step in range(6):
        batch = loader.next()
        assert batch.global_step == step
        assert batch.sample_ids == [2 * (step % 3), 2 * (step % 3) + 1]
        loader.fetch_while_waiting()
        loader.fetch_while_waiting()
        found.append((step, len(seen)))
    assert found == fetched
