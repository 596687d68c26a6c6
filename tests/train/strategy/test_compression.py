"""What PowerSGD has left out of gradients: kept by each rank, and shared out anew among another number of ranks."""

import pytest
import torch

from distrib.job.spec import PowerSgdSettings
from distrib.train.strategy.compression import PowerSgd

CPU = torch.device("cpu")


def make(errors=(), factors=()):
    """A rank's compression that has left out `errors`, by bucket."""
    made = PowerSgd(PowerSgdSettings(), seed=0)
    made.restore(
        {f"compression/error/0/{index}": error for index, error in enumerate(errors)}
        | {
            f"compression/{kind}/0/{index}": factor
            for index, pair in enumerate(factors)
            for kind, factor in zip("pq", pair, strict=True)
        },
        CPU,
    )
    return made


@pytest.fixture
def saved():
    """A checkpoint of two ranks and two buckets."""
    ranks = [[torch.tensor([1.0, 2.0]), torch.tensor([3.0])], [torch.tensor([5.0, -2.0]), torch.tensor([1.0])]]
    factors = [(torch.tensor([7.0]), torch.tensor([8.0])), (torch.tensor([9.0]), torch.tensor([10.0]))]
    return {
        name: tensor
        for rank, errors in enumerate(ranks)
        for name, tensor in make(errors, factors).tensors(rank).items()
    }


def taken_up(saved, rank, world_size):
    other = make()
    names = other.names_to_load([*saved, "model/weight"], rank, world_size)
    other.restore({name: saved[name].clone() for name in names}, CPU)
    return other


def test_as_many_ranks_take_up_their_own(saved):
    both = {}
    for rank in range(2):
        both |= taken_up(saved, rank, 2).tensors(rank)
    assert both.keys() == saved.keys()
    assert all(torch.equal(both[name], tensor) for name, tensor in saved.items())


@pytest.mark.parametrize("world_size", [1, 3])
def test_other_numbers_of_ranks_take_up_the_mean(saved, world_size):
    for rank in range(world_size):
        tensors = taken_up(saved, rank, world_size).tensors(0)
        assert tensors["compression/error/0/0"].tolist() == [3.0, 0.0]
        assert tensors["compression/error/0/1"].tolist() == [2.0]
        assert tensors["compression/q/0/1"].tolist() == [10.0]


def test_a_rank_reads_no_more_than_it_needs(saved):
    names = make().names_to_load(saved, 1, 2)
    assert not any(name.startswith("compression/error/0/") for name in names)
