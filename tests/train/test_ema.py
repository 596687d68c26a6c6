"""Averages of the weights: those of a plain loop, evaluated, kept in checkpoints, written at the end."""

import pytest
import torch
from exact_jobs import Mlp, Points
from exact_reference import relative_difference
from exact_specs import NUM_SAMPLES, SEED
from safetensors.torch import load_file
from torch.nn import functional

from distrib.callbacks import Ema
from tests.train.session.test_exact import STEPS, batches, events_of, launch
from tests.train.test_callbacks import make

__all__ = ["launch"]
pytestmark = pytest.mark.timeout(120)

DECAY = 0.8
EMA = {"target": "distrib.callbacks:Ema", "args": {"decay": DECAY}}


def plain_loop():
    """The model and its averages after each step."""
    torch.manual_seed(SEED)
    model = Mlp()
    averages = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for inputs, targets in batches(Points(NUM_SAMPLES)):
        optimizer.zero_grad()
        functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
        for name, parameter in model.named_parameters():
            averages[name] = DECAY * averages[name] + (1 - DECAY) * parameter.detach()
        yield model, averages


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_averages_are_those_of_a_plain_loop_and_are_evaluated(launch, world_size):
    spec = make([EMA], world_size, steps=STEPS)
    spec["checkpoint"] |= {"best": {"metric": "loss", "mode": "min"}}
    finished, folder = launch(spec)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    evaluation, losses = Points(7, seed=1), {}
    for step, (model, averages) in enumerate(plain_loop(), start=1):
        outputs = torch.func.functional_call(model, averages, evaluation.inputs)
        losses[step] = float(functional.cross_entropy(outputs, evaluation.targets))
        if step == 8:
            at_8 = {name: average.clone() for name, average in averages.items()}
    run = folder / "runs" / "run"
    assert relative_difference(load_file(run / "model.safetensors"), model.state_dict()) < 1e-12 * STEPS
    assert relative_difference(load_file(run / "ema.safetensors"), averages) < 1e-12 * STEPS
    events = events_of(folder, "eval")
    assert [event["step"] for event in events] == [4, 8, 9]
    assert [event["loss"] for event in events] == pytest.approx([losses[4], losses[8], losses[9]], rel=1e-10)
    best = min((4, 8, 9), key=losses.get)
    expected = {8: at_8, 9: averages}[best]
    assert relative_difference(load_file(run / "best.safetensors"), expected) < 1e-12 * STEPS


@pytest.mark.parametrize(
    ("callbacks", "message"),
    [
        ([{**EMA, "args": {"decay": 1.0}}], "callbacks.0: distrib.callbacks:Ema could not be built: ValueError: decay"),
        ([EMA, EMA], "callbacks.1: distrib.callbacks:Ema: another callback averages weights already; remove one"),
    ],
)
def test_bad_averages_are_refused_in_a_line(launch, callbacks, message):
    finished, _ = launch(make(callbacks, 1, steps=2))
    assert finished.returncode == 2
    assert message in finished.stderr
    assert "Traceback" not in finished.stderr


def test_half_precision_is_averaged_in_single_precision():
    model = torch.nn.Linear(2, 2).to(torch.bfloat16)
    ema = Ema(decay=0.999)
    ema.attach(model)
    first = model.weight.detach().float()
    with torch.no_grad():
        model.weight += 1.0
    ema.on_step(None, None)
    moved = ema.state_dict()["averages"]["weight"] - first
    assert moved.dtype == torch.float32
    torch.testing.assert_close(moved, torch.full_like(moved, 0.001), rtol=0.05, atol=0)  # below bfloat16's resolution


def test_the_parameters_are_back_after_an_evaluation_that_fails():
    model = torch.nn.Linear(2, 2)
    ema = Ema(decay=0.5)
    ema.attach(model)
    with torch.no_grad():
        model.weight += 1.0
    before = model.weight.detach().clone()

    def fail():
        with ema.applied():
            assert not torch.equal(model.weight, before)
            raise RuntimeError("no luck")

    with pytest.raises(RuntimeError, match="no luck"):
        fail()
    assert torch.equal(model.weight, before)
