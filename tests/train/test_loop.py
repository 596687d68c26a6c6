"""The train events: when they are written, and what they contain."""

import pytest
import torch
from exact_jobs import Mlp, Points, Sentences, token_mean
from exact_reference import global_batch, mean_loss
from exact_specs import BATCH_SIZE, LOG_EVERY, LOSS_STEPS, NUM_SAMPLES, SEED, STEPS_PER_EPOCH, TOKEN_STEPS, WEIGHTLESS
from torch import nn

pytestmark = pytest.mark.timeout(120)


def marked(*names):
    return [pytest.param(name, marks=pytest.mark.runs(name), id=name) for name in names]


def sample_loss(model, batch):
    inputs, targets = batch
    return nn.functional.cross_entropy(model(inputs), targets), 1


def token_loss(model, batch):
    result = token_mean(model, batch)
    return result["loss"], int(result["weight"])


def losses_of(steps, dataset, loss):
    """(mean loss, weight) of each recorded step."""
    model = Mlp()
    for number, step in enumerate(steps):
        model.load_state_dict(step["weights"])
        yield mean_loss(model, dataset, global_batch(NUM_SAMPLES, BATCH_SIZE, SEED, number), loss)


@pytest.mark.parametrize("name", marked("loss-1", "loss-2", "loss-5"))
def test_the_first_and_the_last_step_and_every_interval_are_logged(runs, name):
    events = runs[name].events("train")
    assert [event["step"] for event in events] == [1, *range(LOG_EVERY, LOSS_STEPS, LOG_EVERY), LOSS_STEPS]


@pytest.mark.parametrize("name", marked("loss-2", "step-3"))
def test_samples_and_epoch_are_those_of_the_step(runs, name):
    for event in runs[name].events("train", "eval"):
        steps = range(event["step"])
        assert event["samples"] == sum(len(global_batch(NUM_SAMPLES, BATCH_SIZE, SEED, step)) for step in steps)
        assert event["epoch"] == (event["step"] - 1) // STEPS_PER_EPOCH


@torch.no_grad()
def check_losses(run, num_steps, dataset, loss):
    losses = list(losses_of(run.record()["steps"], dataset, loss))
    assert len(losses) == num_steps
    start = 0
    for event in run.events("train"):
        window = [(value, weight) for value, weight in losses[start : event["step"]] if weight]
        start = event["step"]
        if not window:
            assert event["loss"] is None
            continue
        expected = sum(value * weight for value, weight in window) / sum(weight for _, weight in window)
        assert event["loss"] == pytest.approx(float(expected), rel=1e-12)
    assert start == num_steps


@pytest.mark.parametrize("name", marked("loss-2", "loss-5"))
def test_the_loss_is_the_mean_over_all_samples_since_the_last_event(runs, name):
    check_losses(runs[name], LOSS_STEPS, Points(NUM_SAMPLES), sample_loss)


@pytest.mark.parametrize("name", marked("step-3", "step-5-accumulate-2"))
def test_the_loss_is_the_mean_over_all_tokens(runs, name):
    check_losses(runs[name], TOKEN_STEPS, Sentences(NUM_SAMPLES, WEIGHTLESS), token_loss)


@pytest.mark.runs("loss-2")
def test_times_are_there_and_make_sense(run):
    events = run.events("train")
    assert [event["time"] for event in events] == sorted(event["time"] for event in events)
    for event in events:
        assert event["attempt"] == 0
        assert 0 <= event["data_seconds"] < event["step_seconds"] < 10
        assert event["samples_per_second"] > 0
