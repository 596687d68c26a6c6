"""The gradient of every step, at every number of ranks, is the weighted mean over the whole global batch."""

import pytest
import torch
from exact_jobs import Mlp, Points, Sentences, token_mean
from exact_reference import flat, global_batch, gradient, part, relative_difference
from exact_specs import (
    BATCH_SIZE,
    CLIP_NORM,
    LAST_STEP_OF_FIRST_EPOCH,
    LOSS_STEPS,
    NUM_SAMPLES,
    SEED,
    TOKEN_STEPS,
    WEIGHTLESS,
    WORLD_SIZES,
)
from torch import nn

pytestmark = pytest.mark.timeout(120)

GRADIENT_TOLERANCE = 1e-12
WEIGHTS_TOLERANCE = 1e-9


def marked(*names):
    return [pytest.param(name, marks=pytest.mark.runs(name), id=name) for name in names]


def sample_loss(model, batch):
    inputs, targets = batch
    return nn.functional.cross_entropy(model(inputs), targets), 1


def token_loss(model, batch):
    result = token_mean(model, batch)
    return result["loss"], int(result["weight"])


def ids_of(step):
    return global_batch(NUM_SAMPLES, BATCH_SIZE, SEED, step)


def check_gradient(step, model, dataset, ids, loss):
    model.load_state_dict(step["weights"])
    assert relative_difference(step["gradients"], gradient(model, dataset, ids, loss)) < GRADIENT_TOLERANCE


LOSS_RUNS = [f"loss-{world_size}" for world_size in WORLD_SIZES]
STEP_RUNS = [f"step-{world_size}-accumulate-2" for world_size in WORLD_SIZES]


def test_the_jobs_have_a_batch_that_no_world_size_divides_and_a_last_one_smaller_than_the_world():
    assert [BATCH_SIZE % world_size for world_size in (2, 5)] == [1, 4]
    assert len(ids_of(LAST_STEP_OF_FIRST_EPOCH)) == 2 < 3


@pytest.mark.parametrize("name", marked(*LOSS_RUNS, "loss-3-accumulate-2"))
def test_with_a_loss_the_gradient_is_that_of_the_mean_over_all_samples(runs, name):
    steps = runs[name].record()["steps"]
    model, dataset = Mlp(), Points(NUM_SAMPLES)
    for number, step in enumerate(steps):
        check_gradient(step, model, dataset, ids_of(number), sample_loss)


@pytest.mark.parametrize("name", marked(*STEP_RUNS, "step-3"))
def test_with_token_weights_the_gradient_is_that_of_the_mean_over_all_tokens(runs, name):
    steps = runs[name].record()["steps"]
    model, dataset = Mlp(), Sentences(NUM_SAMPLES, WEIGHTLESS)
    assert len(steps) == TOKEN_STEPS
    for number, step in enumerate(steps):
        if number != LAST_STEP_OF_FIRST_EPOCH:
            check_gradient(step, model, dataset, ids_of(number), token_loss)


@pytest.mark.runs("step-2-unused")
def test_the_gradient_of_a_mean_over_nothing_is_zero_even_where_only_it_is_nan(run):
    model, dataset = Mlp(), Sentences(NUM_SAMPLES, WEIGHTLESS)
    for number, step in enumerate(run.record()["steps"]):
        used = {
            part: {n: t for n, t in step[part].items() if n.startswith("layers")} for part in ("weights", "gradients")
        }
        unused = [tensor for name, tensor in step["gradients"].items() if name.startswith("unused")]
        assert all(tensor is None or not tensor.any() for tensor in unused)
        if number != LAST_STEP_OF_FIRST_EPOCH:
            check_gradient(used, model, dataset, ids_of(number), token_loss)


@pytest.mark.parametrize("world_size", [2, 3, 5])
def test_the_token_jobs_have_ranks_without_weight_in_steps_that_have_some(world_size):
    slices = [part(ids_of(step), rank, world_size) for step in range(TOKEN_STEPS) for rank in range(world_size)]
    alone = [ids for ids in slices if ids and set(ids) <= set(WEIGHTLESS)]
    assert len(alone) > min(2, world_size)
    assert part(ids_of(0), 0, world_size) in alone
    assert not set(ids_of(0)) <= set(WEIGHTLESS)


@pytest.mark.parametrize("name", marked(*STEP_RUNS, "step-3"))
def test_a_step_without_any_weight_changes_nothing_and_warns(runs, name):
    run = runs[name]
    assert set(ids_of(LAST_STEP_OF_FIRST_EPOCH)) <= set(WEIGHTLESS)
    step, after = run.record()["steps"][LAST_STEP_OF_FIRST_EPOCH:][:2]
    assert not flat(step["gradients"]).any()
    assert torch.equal(flat(after["weights"]), flat(step["weights"]))
    losses = {event["step"]: event["loss"] for event in run.events("train")}
    assert len(losses) == TOKEN_STEPS
    assert [number for number, loss in losses.items() if loss is None] == [LAST_STEP_OF_FIRST_EPOCH + 1]
    warnings = run.events("warning")
    (warning,) = [event for event in warnings if "UserWarning" not in event["message"]]  # those of metrics
    assert "1 step(s) had a global weight of 0" in warning["message"]


@pytest.mark.parametrize("name", marked("loss-5", "step-5-accumulate-2"))
def test_all_ranks_have_the_same_bits(runs, name):
    first, *others = (runs[name].record(rank)["steps"] for rank in range(5))
    for other in others:
        for ours, theirs in zip(first, other, strict=True):
            for part_of_step in ("weights", "gradients"):
                assert torch.equal(flat(ours[part_of_step]), flat(theirs[part_of_step]))


@pytest.mark.runs(*LOSS_RUNS, *STEP_RUNS)
@pytest.mark.parametrize("family", [LOSS_RUNS, STEP_RUNS], ids=["loss", "step"])
def test_the_final_weights_do_not_depend_on_the_number_of_ranks(runs, family):
    expected, *others = (runs[name].weights() for name in family)
    assert any(name.endswith("weight") for name in expected)
    for weights in others:
        assert weights.keys() == expected.keys()
        for name, tensor in weights.items():
            assert float((tensor - expected[name]).norm() / expected[name].norm()) < WEIGHTS_TOLERANCE


@pytest.mark.runs("loss-2")
def test_the_final_weights_are_those_after_the_last_step(run):
    last = run.record()["steps"][-1]
    assert len(run.record()["steps"]) == LOSS_STEPS
    moved = [name for name, tensor in run.weights().items() if not torch.equal(tensor, last["weights"][name])]
    assert sorted(moved) == sorted(last["weights"])


@pytest.mark.runs("clipped")
def test_clipping_is_that_of_the_gradient_of_the_whole_batch(run):
    model, dataset, norms = Mlp(), Points(NUM_SAMPLES), []
    for number, step in enumerate(run.record()["steps"]):
        model.load_state_dict(step["weights"])
        gradient(model, dataset, ids_of(number), sample_loss)
        norms.append(float(nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)))
        clipped = {name: parameter.grad for name, parameter in model.named_parameters()}
        assert relative_difference(step["gradients"], clipped) < GRADIENT_TOLERANCE
    assert min(norms) < CLIP_NORM < max(norms)
