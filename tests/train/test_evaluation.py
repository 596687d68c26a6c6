"""Evaluation over any number of ranks is that of one process over the whole data."""

import warnings

import pytest
import torch
from exact_jobs import Mlp, Normalized, Points, Sentences, token_mean
from exact_reference import mean_loss
from torch import nn
from torchmetrics.classification import MulticlassAccuracy, MulticlassAUROC

pytestmark = pytest.mark.timeout(120)


def marked(*names):
    return [pytest.param(name, marks=pytest.mark.runs(name), id=name) for name in names]


def reload(model, run):
    model.load_state_dict(run.weights())
    return model.eval()


def sample_loss(model, batch):
    inputs, targets = batch
    return nn.functional.cross_entropy(model(inputs), targets), 1


def token_loss(model, batch):
    result = token_mean(model, batch)
    return result["loss"], int(result["weight"])


def check(event, outputs, targets, loss):
    accuracy = MulticlassAccuracy(num_classes=3, average="micro", ignore_index=-1)
    auroc = MulticlassAUROC(num_classes=3, thresholds=None, ignore_index=-1)
    assert event["loss"] == pytest.approx(float(loss), rel=1e-12)
    assert event["accuracy"] == float(accuracy(outputs, targets))
    if "auroc" in event:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert event["auroc"] == pytest.approx(float(auroc(outputs, targets)), rel=1e-12)
        assert event["logits"] == pytest.approx(outputs[:, 0].tolist(), rel=1e-12)


@pytest.mark.parametrize("name", marked("loss-1", "loss-2", "loss-3", "loss-5"))
@torch.no_grad()
def test_seven_samples(runs, name):
    model, dataset = reload(Mlp(), runs[name]), Points(7, seed=1)
    loss, _ = mean_loss(model, dataset, range(7), sample_loss)
    check(runs[name].events("eval")[-1], model(dataset.inputs), dataset.targets, loss)


@pytest.mark.parametrize("name", marked(*(f"step-{size}-accumulate-2" for size in (1, 2, 3, 5))))
@torch.no_grad()
def test_two_samples_of_which_one_has_no_weight(runs, name):
    model, dataset = reload(Mlp(), runs[name]), Sentences(2, weightless=[1], seed=1)
    assert dataset.mask.sum(1).tolist() == [1, 0]
    loss, _ = mean_loss(model, dataset, range(2), token_loss)
    check(runs[name].events("eval")[-1], model(dataset.inputs).flatten(0, 1), dataset.targets.flatten(), loss)


@pytest.mark.parametrize("name", marked("loss-3"))
def test_every_epoch_and_the_end_are_evaluated(runs, name):
    events = runs[name].events("eval")
    assert [event["step"] for event in events] == list(range(6, 121, 6))
    assert [event["epoch"] for event in events] == list(range(20))
    assert len({event["loss"] for event in events}) == 20


@pytest.mark.runs("normalized")
@torch.no_grad()
def test_all_ranks_evaluate_with_the_buffers_of_rank_0_which_are_those_saved(run):
    model, dataset = reload(Normalized(), run), Points(17, seed=1)
    assert int(model.head[0].num_batches_tracked) == 36
    loss, _ = mean_loss(model, dataset, range(17), sample_loss)
    check(run.events("eval")[-1], model(dataset.inputs), dataset.targets, loss)


@pytest.mark.runs("normalized")
def test_a_part_frozen_in_evaluation_mode_stays_so(run):
    """The model itself raises where it is not: in every training step and evaluation."""
    assert run.exit_code == 0, run.errors
    assert len(run.events("eval")) == 6
