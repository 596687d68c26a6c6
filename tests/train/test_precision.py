"""bf16 and fp16."""

import math
import re

import pytest
import torch
from exact_reference import flat
from exact_specs import LARGE_CLIP_NORM, OVERFLOWING

from distrib.train.optimization.precision import Precision

pytestmark = pytest.mark.timeout(120)
CPU = torch.device("cpu")


def mean(values):
    return sum(values) / len(values)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.runs(name), id=name) for name in ("bf16", "fp16")]
)
def test_the_loss_falls(runs, name):
    run = runs[name]
    assert run.exit_code == 0, run.errors
    losses = [event["loss"] for event in run.events("train")]
    assert len(losses) == 40
    assert mean(losses[-4:]) < 0.7 * mean(losses[:4])


@pytest.mark.runs("fp16")
def test_an_update_that_fp16_skipped_is_reported(run):
    warnings = [event for event in run.events("warning") if "checkpoint" not in event["message"]]
    assert warnings
    assert all("the gradient scaler skipped" in event["message"] for event in warnings)
    assert warnings[0]["step"] == 1
    first, second = run.events("train")[:2]
    assert first["loss"] > OVERFLOWING / 10
    assert second["loss"] != first["loss"]


@pytest.mark.runs("fp16-clipped")
def test_every_skipped_update_is_reported(run):
    told = [int(re.search(r"skipped (\d+) update", event["message"]).group(1)) for event in run.events("warning")]
    num_updates = len(run.record()["steps"])
    assert 0 < num_updates < 40
    assert sum(told) == 40 - num_updates


@pytest.mark.runs("fp16-clipped")
def test_clipping_is_that_of_the_unscaled_gradient(run):
    norms = [float(flat(step["gradients"]).norm()) for step in run.record()["steps"]]
    assert max(norms) == pytest.approx(LARGE_CLIP_NORM, rel=1e-5)
    assert 1 < min(norms) < LARGE_CLIP_NORM


@pytest.mark.runs("bf16")
def test_bf16_skips_nothing(run):
    assert run.events("warning") == []


def test_only_fp16_scales():
    assert [Precision(name, CPU).scaler.is_enabled() for name in ("fp32", "bf16", "fp16")] == [False, False, True]


@pytest.mark.parametrize(("name", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.half)])
def test_the_forward_pass_runs_in_the_chosen_precision(name, dtype):
    with Precision(name, CPU).autocast():
        assert torch.nn.Linear(2, 2)(torch.ones(1, 2)).dtype == dtype


def test_skipped_updates_are_counted_once_each():
    precision = Precision("fp16", CPU)
    weight = torch.nn.Parameter(torch.ones(()))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    assert precision.skipped_updates() == 0
    for gradient in (math.inf, math.nan, 1.0):
        weight.grad = torch.tensor(gradient)
        precision.scaler.scale(torch.ones(()))
        precision.scaler.step(optimizer)
        precision.scaler.update()
    assert precision.skipped_updates() == 2
    assert precision.skipped_updates() == 0
