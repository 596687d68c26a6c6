"""A training resumed with DDP sums its gradients in the order of the uninterrupted one, whatever the model does."""

import pytest
import torch

from distrib.errors import TrainingFailedError
from distrib.train.strategy.replicated import clip
from tests.support import strategy_checks as checks
from tests.support.ranks import run_ranks

pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("rank_server")]

CUTS = [1, 2, 3, 4, 6]
"""After the first step DDP rebuilds its buckets; from the third step on `unfreezing` has another layer to train."""


@pytest.mark.parametrize("world_size", [3, 4])
@pytest.mark.parametrize("kind", ["plain", "alternating", "unused", "unfreezing", "freezing"])
def test_a_resumed_training_has_the_same_bits(kind, world_size):
    for resumed in run_ranks(checks.check_resuming, world_size, kind, 8, CUTS):
        assert [with_order for with_order, _ in resumed] == [True] * len(CUTS)
        if kind in ("plain", "alternating") and world_size == 4:
            assert not all(without_order for _, without_order in resumed), "the test could not have failed"


def test_sparse_gradients_cannot_be_clipped():
    embedding = torch.nn.Embedding(4, 2, sparse=True)
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(TrainingFailedError, match=r"train\.clip_norm: torch cannot clip sparse gradients"):
        clip(embedding.parameters(), 1.0)
