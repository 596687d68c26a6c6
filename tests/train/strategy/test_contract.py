"""What every strategy must do, whatever it does with the model: a new one is added to `STRATEGIES` and passes this."""

import pytest
import torch

from distrib.job.plan import Memory
from distrib.train.strategy.registry import STRATEGIES
from tests.support import strategy_checks as checks
from tests.support.ranks import run_ranks

pytestmark = [pytest.mark.timeout(180), pytest.mark.usefixtures("rank_server")]

WORLD_SIZES = {"single": [1], "ddp": [2, 3]}
CASES = [(name, world_size) for name, sizes in WORLD_SIZES.items() for world_size in sizes]
each_case = pytest.mark.parametrize(("name", "world_size"), CASES)
TOLERANCE = {"rtol": 1e-12, "atol": 1e-14}


def same(found, expected, **tolerance):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, **(tolerance or {"rtol": 0, "atol": 0}))


def test_every_strategy_is_tested():
    assert WORLD_SIZES.keys() == STRATEGIES.keys()


@each_case
@pytest.mark.parametrize("num_parts", [1, 2])
def test_gradients_are_those_of_the_mean_over_all_ranks_and_clipped_as_a_whole(name, world_size, num_parts):
    for found, expected, norm, clipped in run_ranks(checks.check_gradients, world_size, name, num_parts):
        same(found, expected, **TOLERANCE)
        whole = float(torch.cat([gradient.flatten() for gradient in expected.values()]).norm())
        assert norm == pytest.approx(whole, rel=1e-12)
        assert norm > 0.01
        assert float(torch.cat([g.flatten() for g in clipped.values()]).norm()) == pytest.approx(0.01, rel=1e-4)


@each_case
def test_without_synchronization_gradients_stay_local(name, world_size):
    for found, expected in run_ranks(checks.check_without_sync, world_size, name):
        same(found, expected, **TOLERANCE)


@each_case
def test_buffers_are_those_of_rank_0(name, world_size):
    assert run_ranks(checks.check_buffers, world_size, name) == [[1.0] * 30] * world_size


@each_case
def test_a_model_that_is_not_wrapped_is_that_of_rank_0(name, world_size):
    for values in run_ranks(checks.check_broadcast, world_size, name):
        assert values
        assert all(each == {0} for each in values)


@each_case
def test_rank_0_has_the_full_weights(name, world_size):
    (weights, state), *others = run_ranks(checks.check_full_weights, world_size, name)
    same(weights, checks.Network().state_dict())
    assert state.keys() == weights.keys()
    assert [found for found, _ in others] == [None] * (world_size - 1)


@each_case
def test_a_parameter_unfrozen_during_a_step_is_synchronized_in_that_step_and_the_next(name, world_size):
    for results in run_ranks(checks.check_unfreezing, world_size, name):
        for found, expected in results:
            same(found, expected, **TOLERANCE)


@each_case
def test_the_shares_of_all_ranks_are_everything(name, world_size):
    results = run_ranks(checks.check_share, world_size, name)
    saved = [key for keys, _ in results for key in keys]
    assert set(saved) >= set(results[0][1])
    assert any(key.startswith("optimizer/") for key in saved)


@each_case
def test_a_resumed_training_has_the_bits_of_an_uninterrupted_one(name, world_size):
    stored, expected = run_ranks(checks.train_and_save, world_size, name, [0, 1, 2], [3, 4, 5])[0]
    for found in run_ranks(checks.restore_and_train, world_size, name, stored, [3, 4, 5]):
        same(found, expected)


@each_case
def test_a_training_continues_at_another_number_of_ranks(name, world_size):
    stored, _ = run_ranks(checks.train_and_save, world_size, name, [0, 1, 2], [])[0]
    _, expected = run_ranks(checks.train_and_save, 1, "single", range(6), [])[0]
    for other, sizes in WORLD_SIZES.items():
        for found in run_ranks(checks.restore_and_train, sizes[-1], other, stored, [3, 4, 5]):
            same(found, expected, rtol=1e-9, atol=1e-12)


@each_case
def test_a_rank_needs_at_most_the_memory_of_the_whole_model(name, world_size):
    whole = Memory(1000, 4000, 4000, 8000)
    needed = checks.make_strategy(name, 0, world_size).memory(whole)
    assert needed.num_parameters == whole.num_parameters
    assert 0 < needed.weights_bytes <= 4000
    assert 0 < needed.optimizer_bytes <= 8000
