"""Losses of a job's own that are no means over the samples show it in autograd's graph."""

import pytest
import torch
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from distrib.train.objective.loss_graph import LossGraph

INPUTS = torch.randn(8, 3, requires_grad=True)
CLASSES = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
SOME = torch.tensor([0, 1, -100, 0, 1, 2, 0, 1])


def found(*losses, num_samples=8):
    """What is found in the last of these losses."""
    graph = LossGraph()
    return [graph.find(loss, num_samples) for loss in losses][-1]


@pytest.mark.parametrize(
    "loss",
    [
        functional.cross_entropy(INPUTS, CLASSES),
        functional.cross_entropy(INPUTS, CLASSES, label_smoothing=0.1),
        functional.cross_entropy(INPUTS, CLASSES, reduction="sum") / 8,
        functional.mse_loss(INPUTS, torch.zeros(8, 3)) / 4 + 0.1 * (INPUTS**2).sum(),
        functional.cross_entropy(INPUTS, CLASSES, reduction="none").sum() / 8,
        functional.cross_entropy(INPUTS, CLASSES, reduction="none").mean(),
        INPUTS.logsumexp(1).mean(),
        (INPUTS[:, 0, None] * torch.eye(8)).mean(0).sum(),  # of as many classes as there are samples
        torch.rand(3, 8, 5, requires_grad=True).mean(-3).sum(1).sum(0) / 8,
    ],
)
def test_means_over_samples_are_none(loss):
    assert found(loss) is None


@pytest.mark.parametrize(
    "loss",
    [
        functional.cross_entropy(INPUTS, SOME),
        functional.cross_entropy(INPUTS, SOME, label_smoothing=0.1),
        2 * functional.cross_entropy(INPUTS, CLASSES, weight=torch.tensor([1.0, 2.0, 3.0])) + INPUTS.mean(),
    ],
)
def test_targets_that_do_not_count_are_found(loss):
    assert "divides by the targets that count" in found(loss)


@pytest.mark.parametrize(
    "loss",
    [
        functional.cross_entropy(INPUTS, CLASSES, reduction="sum"),
        functional.mse_loss(INPUTS, torch.zeros(8, 3), reduction="sum") + INPUTS.mean(),
        functional.cross_entropy(INPUTS, CLASSES, reduction="none").sum(),
    ],
)
def test_sums_are_found(loss):
    assert found(loss) == "is a sum over the batch"


def test_a_division_by_what_is_masked_is_found():
    losses = functional.cross_entropy(INPUTS, CLASSES, reduction="none")
    masked = [(losses * mask).sum() / mask.sum() for mask in (CLASSES > 0, CLASSES > 1)]
    assert found(masked[0]) is None
    assert "no fixed proportion" in found(*masked, masked[0])
    assert found(masked[0], masked[0]) is None
    constant = [losses[:size].sum() / 4 for size in (8, 6)]
    graph = LossGraph()
    assert [graph.find(loss, size) for loss, size in zip(constant, (8, 6), strict=True)] == [None, None]


@pytest.mark.parametrize(
    "loss",
    [
        functional.mse_loss,
        functional.l1_loss,
        functional.binary_cross_entropy_with_logits,
        lambda outputs, targets: ((outputs - targets) ** 2).mean() + 0.1 * INPUTS.pow(2).mean(),
        lambda outputs, targets: functional.cross_entropy(
            outputs.flatten()[:, None] * INPUTS[:1], targets.flatten().long()
        ),
    ],
)
def test_a_mean_over_a_varying_number_of_elements_is_found(loss):
    """As over sequences that each slice pads to its own longest one."""
    outputs = torch.randn(8, 6, requires_grad=True)
    longer, shorter, fewer = outputs, outputs[:, :4], outputs[:5]
    zeros = torch.zeros(8, 6)
    graph = LossGraph()
    assert graph.find(loss(longer, zeros), 8) is None
    assert graph.find(loss(fewer, zeros[:5]), 5) is None
    assert "is a mean over elements" in graph.find(loss(shorter, zeros[:, :4]), 8)


def test_a_temperature_that_is_annealed_is_none():
    loss = functional.cross_entropy(INPUTS, CLASSES)
    assert found(*(loss / temperature for temperature in (5.0, 4.5, 4.0, 4.0, 1.0))) is None


def test_activation_checkpointing_runs_no_forward_pass_again_and_still_can():
    calls = []

    def loss(inputs):
        calls.append(1)
        return functional.cross_entropy(inputs, SOME)

    inputs = torch.randn(8, 3, requires_grad=True)
    output = checkpoint(loss, inputs, use_reentrant=False)
    assert found(output) is None
    assert len(calls) == 1
    output.backward()
    assert inputs.grad is not None
