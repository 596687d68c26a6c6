"""Updates of sessions: random numbers of optimizers, and means over several global batches."""

import pytest
import torch

from tests.support.ranks import run_ranks
from tests.support.update_checks import accumulate, update_with_noise

pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("rank_server")]


@pytest.mark.parametrize("how", ["loss", "function", "backward"])
def test_noise_of_an_update_is_the_same_on_all_ranks(how):
    ((alone, _),) = run_ranks(update_with_noise, 1, how)
    results = run_ranks(update_with_noise, 3, how)
    for weights, _ in results:
        for found, first, expected in zip(weights, results[0][0], alone, strict=True):
            assert torch.equal(found, first)
            torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12)
    drawn = [number for _, numbers in results for number in numbers]
    assert len(set(drawn)) == len(drawn)


@pytest.mark.parametrize("world_size", [1, 3])
def test_a_weighted_mean_may_span_global_batches_of_several_sizes(world_size):
    for found, expected in run_ranks(accumulate, world_size):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)
