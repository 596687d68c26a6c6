"""More kinds of training with `minimize`: Muon beside AdamW, an LSTM with carried state, half precision."""

import json

import pytest
import torch
from exact_jobs import Mlp, Points
from exact_reference import flat
from exact_specs import NUM_SAMPLES
from session_jobs import Recurrent, Series
from torch.nn import functional

from distrib.job.reader import Job, JobError
from distrib.train.objective.task import TaskError, check_keys, read_logged
from distrib.train.resolved_job import ResolvedJob
from tests.train.session.test_exact import (
    POINTS,
    SGD,
    STEPS,
    TOLERANCE,
    batches,
    events_of,
    launch,
    make_spec,
    model_of,
)

__all__ = ["launch"]
pytestmark = pytest.mark.timeout(120)

MUON = {
    "matrices": {"target": "torch.optim:Muon", "args": {"lr": 0.02}, "parameters": ["*.weight"]},
    "rest": {"target": "torch.optim:AdamW", "args": {"lr": 0.01}, "parameters": ["*.bias"]},
}
HALF_POINTS = {"target": "exact_jobs:Points", "args": {"num_samples": NUM_SAMPLES, "dtype": "float32"}}
HALF_MODEL = {"target": "exact_jobs:Mlp", "args": {"dtype": "float32"}}


def differences(folder, models):
    """By step, how far the weights are from those of a plain loop, relative to their norm."""
    for number, model in enumerate(models, start=1):
        found, expected = flat(torch.load(folder / f"weights-{number:04}.pt")), flat(model.state_dict())
        yield number, float((found - expected).norm() / expected.norm())
    assert number == STEPS


def plain_muon():
    model = model_of(Mlp)
    named = dict(model.named_parameters())
    muon = torch.optim.Muon([p for n, p in named.items() if n.endswith("weight")], lr=0.02)
    adam = torch.optim.AdamW([p for n, p in named.items() if n.endswith("bias")], lr=0.01)
    for inputs, targets in batches(Points(NUM_SAMPLES)):
        model.zero_grad()
        functional.cross_entropy(model(inputs), targets).backward()
        muon.step()
        adam.step()
        yield model


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_muon_for_matrices_and_adamw_for_the_rest(launch, world_size):
    spec = make_spec("half", world_size, model="exact_jobs:Mlp", train_data=POINTS, optimizer=None)
    del spec["optimizer"]
    finished, folder = launch({**spec, "optimizers": MUON})
    assert finished.returncode == 0, finished.stdout + finished.stderr
    for number, difference in differences(folder, plain_muon()):
        assert difference < TOLERANCE * number, number


def plain_recurrent():
    model, dataset, state = model_of(Recurrent), Series(), None
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for time in range(STEPS):
        samples = [dataset[lane * dataset.length + time] for lane in range(5)]
        inputs, targets = (torch.stack(part) for part in zip(*samples, strict=True))
        model.zero_grad()
        outputs, state = model(inputs, state)
        state = tuple(part.detach() for part in state)
        functional.mse_loss(outputs, targets).backward()
        optimizer.step()
        yield model


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_an_lstm_carries_the_state_of_its_lanes(launch, world_size):
    """5 lanes on 2 or 3 ranks: slices of 2 and 3, or of 1, 2 and 2."""
    spec = make_spec("recurrent", world_size, model="session_jobs:Recurrent", train_data=None, optimizer=SGD)
    spec["data"] = {"train": "session_jobs:Series", "order": "session_jobs:in_step", "batch_size": 5}
    finished, folder = launch(spec)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    for number, difference in differences(folder, plain_recurrent()):
        assert difference < TOLERANCE * number, number


def plain_half(precision, scale):
    """A plain loop under autocast, with a gradient scaler for fp16; yields the model and whether it was updated."""
    model = model_of(lambda: Mlp(dtype="float32"))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scaler = torch.amp.GradScaler("cpu", enabled=precision == "fp16")
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}[precision]
    for inputs, targets in batches(Points(NUM_SAMPLES, dtype="float32")):
        model.zero_grad()
        with torch.autocast("cpu", dtype):
            loss = functional.cross_entropy(model(inputs), targets) * scale
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        yield model


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize(("precision", "scale"), [("bf16", 1.0), ("fp16", 1.0), ("fp16", 32.0)])
def test_half_precision_is_that_of_a_plain_loop(launch, precision, scale, world_size):
    """Up to half precision's rounding, which differs with the slices.

    A large loss overflows fp16 at first; which updates are skipped depends on the slices too, so that only one
    rank can be compared.
    """
    step = {"target": "session_jobs:half", "args": {"scale": scale}}
    spec = make_spec("half", world_size, model=HALF_MODEL, train_data=HALF_POINTS, optimizer=SGD, step=step)
    spec["train"] |= {"precision": precision}
    finished, folder = launch(spec)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    for number, difference in differences(folder, plain_half(precision, scale)):
        if world_size == 1 or scale == 1:
            assert difference < (1e-6 if world_size == 1 else 2e-2) * number, number
    skipped = [event for event in events_of(folder, "warning") if "gradient scaler skipped" in event["message"]]
    assert bool(skipped) == (scale > 1)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("four_parameters", "step.args: four_parameters needs the argument 'extra'; its signature is"),
        ("one_parameter", "step: one_parameter must accept 2 positional argument(s); its signature is"),
    ],
)
def test_a_step_with_other_parameters_is_refused_in_the_plan(tmp_path, step, message):
    spec = make_spec("plain", 1, model="exact_jobs:Mlp", train_data=POINTS, optimizer=SGD)
    (tmp_path / "job.yaml").write_text(json.dumps({**spec, "step": f"session_jobs:{step}"}))
    with pytest.raises(JobError) as caught:
        ResolvedJob.resolve(Job.load(tmp_path / "job.yaml"))
    assert message in str(caught.value)


def test_an_extra_value_of_a_step_is_refused_with_the_way_to_log_it():
    with pytest.raises(TaskError, match=r"unknown key 'accuracy'; .* other values are logged as 'log': {name: value}"):
        check_keys({"loss": None, "accuracy": 0.5})
    with pytest.raises(TaskError, match="unknown key 'output'; did you mean 'outputs'"):
        check_keys({"output": 1})
    with pytest.raises(TaskError, match="'log' is a dict of numbers and scalar tensors by name, not a float"):
        read_logged({"log": 0.5})
