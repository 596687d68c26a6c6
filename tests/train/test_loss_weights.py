"""The weights of slices make their mean losses add up to that of the whole batch."""

import functools

import pytest
import torch
from torch import nn
from torch.nn import functional

from distrib.train.objective.loss_weights import LossForm, loss_form

WEIGHTS = torch.tensor([0.1, 10.0, 2.0])
OUTPUTS = torch.randn(10, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
CLASSES = torch.tensor([0, 1, 2, 255, 255, 1, 0, 255, -100, 2])
PROBABILITIES = OUTPUTS.roll(1, 0).softmax(1)
SLICES = [slice(0, 3), slice(3, 5), slice(5, 10)]


class Derived(nn.CrossEntropyLoss):
    def __init__(self):
        super().__init__(weight=WEIGHTS.double())


class Overridden(nn.CrossEntropyLoss):
    def forward(self, outputs, targets):
        return super().forward(outputs, targets) * 2


CASES = {
    "default": (nn.CrossEntropyLoss(), CLASSES.clamp(max=2)),
    "ignored": (nn.CrossEntropyLoss(ignore_index=255), CLASSES.clamp(min=0)),
    "weights": (Derived(), CLASSES.clamp(0, 2)),
    "weights and ignored": (nn.CrossEntropyLoss(WEIGHTS.double(), ignore_index=255), CLASSES.clamp(min=0)),
    "smoothed": (nn.CrossEntropyLoss(WEIGHTS.double(), label_smoothing=0.2), CLASSES.clamp(max=2)),
    "probabilities": (nn.CrossEntropyLoss(WEIGHTS.double()), PROBABILITIES),
    "likelihood": (nn.NLLLoss(WEIGHTS.double()), CLASSES.clamp(max=2)),
    "function": (functools.partial(functional.cross_entropy, ignore_index=255), CLASSES.clamp(min=0)),
    "plain function": (functional.nll_loss, CLASSES.clamp(max=2)),
}


@pytest.mark.parametrize("name", CASES)
def test_slices_add_up(name):
    loss, targets = CASES[name]
    form = loss_form(loss)
    parts = [(loss(OUTPUTS[part], targets[part]), form.count(OUTPUTS[part], targets[part])) for part in SLICES]
    total = sum(torch.where(weight > 0, value * weight, 0.0) for value, weight in parts)
    expected = loss(OUTPUTS, targets)
    torch.testing.assert_close(total / sum(weight for _, weight in parts), expected, rtol=1e-12, atol=0)


def test_targets_of_several_dimensions_count_each():
    targets = torch.tensor([[0, -100], [1, 2]])
    assert loss_form(nn.CrossEntropyLoss()).count(torch.zeros(2, 3, 2), targets) == 3
    assert loss_form(nn.CrossEntropyLoss()).count(torch.zeros(2, 3, 2), torch.zeros(2, 3, 2)) == 4


def test_a_slice_whose_targets_are_all_ignored_weighs_nothing():
    assert loss_form(nn.CrossEntropyLoss()).count(OUTPUTS[:2], torch.tensor([-100, -100])) == 0
    assert loss_form(Derived()).count(OUTPUTS[:2], torch.tensor([-100, -100])) == 0


@pytest.mark.parametrize(
    ("loss", "is_explicit"),
    [
        (nn.CrossEntropyLoss(), False),
        (nn.CrossEntropyLoss(ignore_index=0), True),
        (nn.NLLLoss(WEIGHTS), True),
        (functools.partial(functional.cross_entropy, ignore_index=1), True),
    ],
)
def test_weights_are_expected_where_the_job_names_them(loss, is_explicit):
    assert loss_form(loss).is_explicit == is_explicit


def test_ignored_targets_are_found():
    form = loss_form(nn.CrossEntropyLoss())
    assert form.has_ignored(torch.tensor([1, -100]))
    assert not form.has_ignored(torch.tensor([1, 2]))
    assert not form.has_ignored(PROBABILITIES)


@pytest.mark.parametrize(
    "loss",
    [
        nn.MSELoss(reduction="sum"),
        nn.CrossEntropyLoss(reduction="sum"),
        functools.partial(functional.l1_loss, reduction="sum"),
    ],
)
def test_sums_are_known(loss):
    assert loss_form(loss) == LossForm(is_known=True, is_sum=True)


@pytest.mark.parametrize("loss", [nn.MSELoss(), nn.KLDivLoss(reduction="batchmean"), functional.l1_loss])
def test_means_over_samples_are_known(loss):
    assert loss_form(loss) == LossForm(is_known=True)


@pytest.mark.parametrize("loss", [Overridden(), nn.Linear(1, 1), lambda outputs, targets: outputs.sum()])
def test_any_other_loss_is_unknown(loss):
    assert loss_form(loss) == LossForm()
