"""Situations from public bug reports in which training goes wrong without a word: each has the right value here."""

import re

import pytest
import torch
from exact_reference import global_batch
from fault_jobs import Growing, Linear, Points, Scaled, pretrained
from safetensors.torch import load_file
from torch import nn

from distrib.runs.checkpoints import CheckpointFolder
from distrib.train.checkpoint.parts import ModelPart, RestoreError
from distrib.train.checkpoint.restore import load_model
from distrib.train.checkpoint.weights import WeightsError, load_weights
from distrib.train.process.randomness import reseed

pytestmark = pytest.mark.timeout(150)


def marked(*names):
    return [pytest.param(name, marks=pytest.mark.runs(f"fault-{name}-1", f"fault-{name}-3"), id=name) for name in names]


def difference(ours, theirs):
    return max(float((ours[name] - theirs[name]).abs().max()) for name in theirs)


@pytest.mark.parametrize(
    "name",
    marked(
        "ignored",
        "ignored-unasked",
        "ignored-late",
        "weighted",
        "sum",
        "proxies",
        "repeating",
        "frozen",
        "freezing",
        "share",
        "noisy",
        "drawn",
    ),
)
def test_three_workers_train_what_one_does(runs, name):
    alone, three = runs[f"fault-{name}-1"], runs[f"fault-{name}-3"]
    assert difference(three.weights(), alone.weights()) < 1e-12
    for kind in ("train", "eval"):
        losses = [[event["loss"] for event in run.events(kind)] for run in (alone, three)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-11)


@pytest.mark.runs("fault-growing-1", "fault-growing-3")
def test_buffers_that_each_rank_makes_and_grows(runs):
    alone, three = (runs[f"fault-growing-{size}"] for size in (1, 3))
    expected = {name: tensor for name, tensor in alone.weights().items() if name.startswith("layer.")}
    assert difference(three.weights(), expected) < 1e-12
    losses = [[event["loss"] for event in run.events("eval")] for run in (alone, three)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-11)
    model = Growing()
    load_weights(model, three.layout.weights_file, makes_buffers=True)
    assert model.kept.unique().tolist() == [2.0]
    with pytest.raises(WeightsError, match="unknown to the model: kept"):
        load_weights(Growing(), three.layout.weights_file)


@pytest.mark.runs("fault-growing-3")
def test_buffers_made_in_forward_are_restored(run):
    model = Growing()
    load_model(CheckpointFolder.at(run.layout.checkpoints, 6, 0), model)
    assert model.kept.unique().tolist() == [2.0]
    part = ModelPart("model", Growing())
    assert part.target("kept", torch.Size([7]), torch.float64).shape == (7,)
    with pytest.raises(RestoreError, match="the job's model has none"):
        part.target("other.kept", torch.Size([7]), torch.float64)
    with pytest.raises(RestoreError, match=r"layer\.bias with shape"):
        part.target("layer.bias", torch.Size([7]), torch.float64)


@pytest.mark.runs("fault-sum-1")
def test_a_sum_is_that_of_plain_pytorch(runs):
    dataset, ids = Points(), global_batch(22, 8, 0, 0)
    reseed(0)
    expected = nn.functional.cross_entropy(Linear()(dataset.inputs[ids]), dataset.targets[ids], reduction="sum")
    assert runs["fault-sum-1"].events("train")[0]["loss"] == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.runs("fault-proxies-3")
def test_a_loss_with_parameters_is_trained(runs):
    losses = [event["loss"] for event in runs["fault-proxies-3"].events("train")]
    assert losses[-1] < losses[0]


@pytest.mark.runs("fault-repeating-silently")
def test_a_batch_of_another_length_is_an_error_that_names_the_way_out(run):
    assert run.output["status"] == "failed"
    assert run.output["error"]["type"] == "WeightError"
    assert "give data.collate a method weight(batch)" in run.output["error"]["message"]


def warnings(run):
    return [event["message"] for event in run.events("warning")]


@pytest.mark.runs("fault-unknown")
def test_a_loss_that_is_no_mean_is_reported(run):
    assert run.exit_code == 0
    (message,) = [text for text in warnings(run) if "fault_jobs:summed" in text]
    assert "is not a mean over the samples" in message


@pytest.mark.runs("fault-drawn-1", "fault-drawn-3")
def test_what_loader_workers_share_is_reported(runs):
    (message,) = warnings(runs["fault-drawn-1"])
    assert re.search(
        r"loader processes share what the job keeps open: an open file: .*/fault_jobs.py \(\d+\);", message
    )
    assert not warnings(runs["fault-drawn-3"])


@pytest.mark.runs("fault-counting")
def test_what_a_model_counts_outside_of_its_state_is_reported(run):
    (message,) = warnings(run)
    assert message.startswith("plain attributes that change in every step are in no checkpoint: model.num_steps; ")


@pytest.mark.runs("fault-ignoring")
def test_a_step_whose_loss_ignores_targets_is_reported(run):
    (message,) = [text for text in warnings(run) if "fault_jobs:ignoring" in text]
    assert "divides by the targets that count" in message
    assert 'return from step {"loss": …, "weight": …}' in message


@pytest.mark.runs("fault-ignoring")
def test_what_a_step_logs_in_its_dict_is_a_mean_over_the_samples(run):
    for kind, samples in (("train", Points(8, ignored=255)), ("eval", Points(11, seed=1, ignored=255))):
        expected = float((samples.targets == 255).double().mean())
        assert 0 < expected < 1
        assert [event["ignored"] for event in run.events(kind)] == pytest.approx([expected] * len(run.events(kind)))


@pytest.mark.runs("fault-eval-mode")
def test_a_model_in_evaluation_mode_is_trained(run):
    """With dropout, so another loss than in evaluation mode."""
    assert any("was put into training mode" in text for text in warnings(run))
    reseed(0)
    model, ids = pretrained(), global_batch(22, 8, 0, 0)
    loss = nn.functional.cross_entropy(model(Points().inputs[ids]), Points().targets[ids])
    assert run.events("train")[0]["loss"] != pytest.approx(loss.item(), rel=1e-3)


@pytest.mark.runs("fault-extra-state-1")
def test_extra_state_is_in_the_final_weights(run):
    model = Scaled()
    load_weights(model, run.layout.weights_file)
    assert model.largest == pytest.approx(float(Points().inputs.abs().max()))
    assert set(load_file(run.layout.weights_file)) == {"layer.weight", "layer.bias"}


@pytest.mark.runs("fault-no-outputs")
def test_missing_outputs_are_found_before_the_first_step(run):
    assert run.output["error"]["type"] == "TaskError"
    assert "metrics need 'outputs'" in run.output["error"]["message"]
    assert not run.events("train")


@pytest.mark.runs("fault-misspelled")
def test_an_unknown_key_of_a_step_is_named_with_the_nearest(run):
    assert "unknown key 'wieght'; did you mean 'weight'?" in run.output["error"]["message"]


@pytest.mark.runs("fault-outside")
def test_a_parameter_outside_of_the_model_is_reported(run):
    assert any("belong neither to the model nor to a loss module" in text for text in warnings(run))


@pytest.mark.runs("fault-unused")
def test_parameters_without_a_gradient_are_named_before_the_update(run):
    """The second micro-batch does not use the layer; its gradient is there, but would not be that of all ranks."""
    assert "other.weight, other.bias; set ddp.find_unused_parameters: true" in run.output["error"]["message"]
    assert run.output["error"]["traceback"] is None
    assert not run.events("train")


@pytest.mark.runs("fault-detached")
def test_a_loss_without_a_gradient_is_refused_in_words(run):
    assert "the loss reaches no parameter that is trained" in run.output["error"]["message"]


@pytest.mark.runs("fault-share-3", "fault-share-1")
def test_a_metric_that_counts_in_an_attribute_is_reported(runs):
    """Its mean over slices of 3, 3 and 4 samples is that of all 10 nevertheless."""
    alone, three = (runs[f"fault-share-{size}"] for size in (1, 3))
    values = [[event["share"] for event in each.events("eval")] for each in (alone, three)]
    assert values[0] == pytest.approx(values[1], rel=1e-12)
    assert [text for text in warnings(three) if "share.num_seen changes with each batch" in text]
    assert not [text for text in warnings(alone) if "num_seen" in text]


REFUSED = {
    "backward": "has run a backward pass itself",
    "parallel": "gave a DataParallel; return the model in it",
    "unfreezing": "frozen or unfrozen between the micro-batches of a step",
    "expanded": "model: held is expanded, so several of its elements are one in memory",
    "sparse": "model: held is a tensor of type torch.float32 and layout torch.sparse_coo, which a file of weights",
    "short": "model: held: ranks cannot send each other such tensors (Invalid scalar type)",
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.runs(f"fault-{name}"), id=name) for name in REFUSED]
)
def test_is_refused_in_words(run, name):
    assert REFUSED[name] in run.output["error"]["message"]
    assert run.output["error"]["traceback"] is None
