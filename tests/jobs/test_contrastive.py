"""The contrastive job: partners are found among all rows of the global batch."""

import pytest
import torch

from jobs.contrastive import TwoTowers, Views

pytestmark = pytest.mark.timeout(180)


def test_views_are_of_the_same_factors():
    first, second = Views(64).tensors
    assert first.shape == second.shape == (64, 32)
    assert torch.equal(Views(64).tensors[0], first)
    assert not torch.equal(Views(64, seed=1).tensors[0], first)


def test_the_model_gives_unit_vectors():
    for vectors in TwoTowers(dimension=4)(*Views(10).tensors):
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(10))


@pytest.mark.parametrize("workers", [1, 3])
def test_run_finds_the_partners(run_job, workers):
    run = run_job("contrastive.yaml", "train.epochs=2", f"resources.workers={workers}")
    events = run.events("eval")
    assert events[-1]["recall"] > 0.65  # of 256 rows; by chance 0.004
    assert run.events("train")[0]["loss"] == pytest.approx(7.081, abs=0.01)  # of all 256 rows, not of a rank's
