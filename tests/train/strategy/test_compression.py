"""What PowerSGD has left out of gradients: kept for each rank, and averaged for another number of ranks."""

import pytest
import torch

from distrib.job.spec.resources import PowerSgdSettings
from distrib.train.state import TrainingState
from distrib.train.strategy.compression import PowerSgd
from tests.support.memory_checkpoint import MemoryCheckpoint
from tests.train.test_state import ReplicatedStrategy

CPU = torch.device("cpu")


def make(rank, world_size, stored=None, state=None):
    """A rank's compression, registered as a strategy registers it."""
    compression = PowerSgd(PowerSgdSettings(), seed=0, device=CPU)
    if state is not None:
        compression.load_state_dict(state["factors"])
        compression.errors.load_state_dict({"errors": dict(enumerate(state["errors"]))})
    training = TrainingState(ReplicatedStrategy(rank, world_size), rank, world_size, stored)
    training.register("compression", compression)
    training.register("errors", compression.errors, per_rank=True)
    return compression, training


@pytest.fixture
def stored():
    """A checkpoint of two ranks and two buckets."""
    ranks = [[torch.tensor([1.0, 2.0]), torch.tensor([3.0])], [torch.tensor([5.0, -2.0]), torch.tensor([1.0])]]
    factors = {
        "iteration": 8,
        "left": {0: torch.tensor([7.0]), 1: torch.tensor([9.0, 9.5])},
        "right": {0: torch.tensor([8.0]), 1: torch.tensor([10.0])},
    }
    states = [make(rank, 2, state={"errors": errors, "factors": factors})[1] for rank, errors in enumerate(ranks)]
    return MemoryCheckpoint([state.snapshot() for state in states])


def test_as_many_ranks_restore_their_own(stored):
    both = MemoryCheckpoint([make(rank, 2, stored)[1].snapshot() for rank in range(2)])
    assert both.stored.keys() == stored.stored.keys()
    assert all(torch.equal(both.stored[name], tensor) for name, tensor in stored.stored.items())


@pytest.mark.parametrize("world_size", [1, 3])
def test_other_numbers_of_ranks_restore_the_mean(stored, world_size):
    for rank in range(world_size):
        compression, _ = make(rank, world_size, stored)
        errors, factors = compression.errors.state_dict()["errors"], compression.state_dict()
        assert errors[0].tolist() == [3.0, 0.0]
        assert errors[1].tolist() == [2.0]
        assert (factors["iteration"], factors["right"][1].tolist(), factors["left"][1].tolist()) == (
            8,
            [10.0],
            [9.0, 9.5],
        )


def test_a_rank_reads_no_more_than_it_needs(stored):
    names = []
    read = stored.read
    stored.read = lambda targets: (names.extend(targets), read(targets))
    make(1, 2, stored)
    assert any(name.startswith("errors/1/") for name in names)
    assert not any(name.startswith("errors/0/") for name in names)
