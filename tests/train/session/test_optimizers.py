"""Several optimizers by name: each parameter in one of them, and a schedule for each."""

import json

import pytest
import torch
from exact_jobs import Mlp, Points
from exact_reference import flat
from exact_specs import NUM_SAMPLES
from safetensors.torch import load_file
from session_jobs import Gan, Unlabeled, critic_loss, generator_loss
from torch.nn import functional

from distrib.job.reader import Job, JobError
from distrib.job.step_plan import Facts, make_step_plan
from distrib.train.checks.check_parts import check_parts
from distrib.train.resolved_job import ResolvedJob
from tests.train.session.test_exact import (
    POINTS,
    STEPS,
    TOLERANCE,
    UNLABELED,
    batches,
    events_of,
    launch,
    make_spec,
    model_of,
)

__all__ = ["launch"]
pytestmark = pytest.mark.timeout(120)

DECAY = {"target": "torch.optim.lr_scheduler:ExponentialLR", "args": {"gamma": 0.9}}
ADAM_AND_SGD = {
    "matrices": {
        "target": "torch.optim:AdamW",
        "args": {"lr": 0.01},
        "parameters": ["layers.*.weight"],
        "schedule": DECAY,
    },
    "rest": {"target": "torch.optim:SGD", "args": {"lr": 0.1, "momentum": 0.9}, "parameters": ["*.bias"]},
}
NETWORKS = {
    "critic": {"target": "torch.optim:Adam", "args": {"lr": 0.01}, "parameters": ["critic.*"], "schedule": DECAY},
    "generator": {"target": "torch.optim:SGD", "args": {"lr": 0.1, "momentum": 0.9}, "parameters": ["generator.*"]},
}


def make(name, world_size, model, data, optimizers, **sections):
    spec = make_spec(name, world_size, model=model, train_data=data, optimizer=None, **sections)
    del spec["optimizer"]
    return {**spec, "optimizers": optimizers}


@pytest.mark.parametrize("step", ["plain", "by_loss"])
@pytest.mark.parametrize("world_size", [1, 2])
def test_two_optimizers_share_the_parameters_of_a_model(launch, world_size, step):
    spec = make("plain", world_size, "exact_jobs:Mlp", POINTS, ADAM_AND_SGD)
    if step == "by_loss":
        del spec["step"]
        spec["loss"] = "torch.nn:CrossEntropyLoss"
    finished, folder = launch(spec)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    model = model_of(Mlp)
    named = dict(model.named_parameters())
    adam = torch.optim.AdamW([p for n, p in named.items() if n.endswith("weight")], lr=0.01)
    sgd = torch.optim.SGD([p for n, p in named.items() if n.endswith("bias")], lr=0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.ExponentialLR(adam, 0.9)
    for inputs, targets in batches(Points(NUM_SAMPLES)):
        model.zero_grad()
        functional.cross_entropy(model(inputs), targets).backward()
        adam.step()
        sgd.step()
        schedule.step()
    found, expected = flat(load_file(folder / "runs/run/model.safetensors")), flat(model.state_dict())
    assert float((found - expected).norm() / expected.norm()) < TOLERANCE * STEPS
    rates = [event["lr"] for event in events_of(folder, "train")]
    assert rates == [{"matrices": pytest.approx(0.01 * 0.9**step), "rest": 0.1} for step in range(STEPS)]


@pytest.mark.parametrize("world_size", [1, 3])
def test_a_step_updates_with_the_optimizer_that_it_names_or_that_has_the_parameters(launch, world_size):
    spec = make("named_gan", world_size, "session_jobs:Gan", UNLABELED, NETWORKS)
    finished, folder = launch(spec)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    model = model_of(Gan)
    critic = torch.optim.Adam(model.critic.parameters(), lr=0.01)
    generator = torch.optim.SGD(model.generator.parameters(), lr=0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.ExponentialLR(critic, 0.9)
    for number, (real, noise) in enumerate(batches(Unlabeled(NUM_SAMPLES)), start=1):
        for optimizer, loss in (
            (critic, lambda real=real, noise=noise: critic_loss(model, real, noise)),
            (generator, lambda noise=noise: generator_loss(model, noise)),
        ):
            model.zero_grad()
            loss().backward()
            optimizer.step()
        schedule.step()
        found, expected = flat(torch.load(folder / f"weights-{number:04}.pt")), flat(model.state_dict())
        assert float((found - expected).norm() / expected.norm()) < TOLERANCE * number


def changed(name, **values):
    return {**ADAM_AND_SGD, name: {**ADAM_AND_SGD[name], **values}}


def check(path):
    """What the plan checks."""
    job = Job.load(path)
    check_parts(ResolvedJob.resolve(job), make_step_plan(job.spec, Facts(NUM_SAMPLES), 1), may_allocate=True)


@pytest.mark.parametrize(
    ("optimizers", "message"),
    [
        (changed("rest", parameters=["*.bias", "nothing.*"]), "optimizers.rest.parameters: 'nothing.*' matches no"),
        (changed("rest", parameters=["*.bias", "layers.0.*"]), "layers.0.weight belongs to the optimizer matrices too"),
        (changed("rest", parameters=["layers.0.bias"]), "no optimizer has layers.3.bias; add a pattern"),
        (changed("rest", target="torch.optim:LBFGS", args={}), "optimizers.rest: LBFGS evaluates the loss several"),
        (changed("rest", target="exact_jobs:NUM_FEATURES", args={}), "optimizers.rest"),
        ({}, "optimizers: "),
    ],
)
def test_wrong_optimizers_are_refused_in_the_plan(tmp_path, optimizers, message):
    spec = make("plain", 1, "exact_jobs:Mlp", POINTS, optimizers)
    del spec["step"]
    path = tmp_path / "job.yaml"
    path.write_text(json.dumps({**spec, "loss": "torch.nn:CrossEntropyLoss"}))
    with pytest.raises(JobError) as caught:
        check(path)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": "torch.optim:SGD"}, "optimizer and optimizers exclude each other; remove one"),
        ({"schedule": DECAY}, "with optimizers each has a schedule of its own: optimizers.NAME.schedule"),
        ({"optimizers": None}, "optimizer or optimizers is required"),
    ],
)
def test_the_spec_names_optimizers_in_one_way(tmp_path, changes, message):
    spec = {**make("plain", 1, "exact_jobs:Mlp", POINTS, ADAM_AND_SGD), **changes}
    (tmp_path / "job.yaml").write_text(json.dumps(spec))
    with pytest.raises(JobError, match=message):
        Job.load(tmp_path / "job.yaml")
