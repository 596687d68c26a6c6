"""Any process killed at any time: the run ends with the same bits as an undisturbed one."""

import os
import signal
import time

import pytest
import torch
from exact_jobs import Mlp, Points
from exact_reference import global_batch, gradient, relative_difference
from safetensors.torch import load_file

from tests.support.recovery_runs import (
    BATCH_SIZE,
    NUM_SAMPLES,
    assert_same,
    children_of,
    deal_moments,
    job,
    make_strikes,
    run_through,
    samples_by_step,
    wait_until_dead,
)

pytestmark = pytest.mark.timeout(120)


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_kills_at_random_moments(make_place, references, world_size):
    """Every moment that there is, at one of the numbers of ranks."""
    reference, place = references(world_size), make_place("killed", job(resources={"workers": world_size}))
    run_through(place, make_strikes(world_size, deal_moments(world_size - 1, 4)))
    assert_same(place, reference, world_size)


def test_ranks_without_a_share(make_place):
    spec = job(
        model="recovery_jobs:One", optimizer={"target": "torch.optim:SGD", "args": {"lr": 0.1}}, train={"steps": 30}
    )
    reference, place = (make_place(name, {**spec, "resources": {"workers": 3}}) for name in ("reference", "killed"))
    reference.start()
    run_through(place, [{"moment": "updated", "rank": 2, "nth": 20, "victim": "self"}])
    assert_same(place, reference, 3, 30)


def test_a_program_of_its_own(make_place, references):
    reference, place = references(2), make_place("killed", job(), is_program=True)
    run_through(place, [{"moment": "commit", "rank": 0, "nth": 2, "victim": "launcher"}])
    assert_same(place, reference, 2)


@pytest.mark.parametrize("moment", ["at once", "in training"])
def test_no_process_outlives_the_launcher(make_place, moment):
    data = {"loader_workers": 1} if moment == "in training" else {}
    place = make_place("killed", job(data=data, train={"steps": 100000}, resources={"workers": 3}))
    launch = place.start()
    launch.wait_until(launch.ranks)
    if moment == "in training":
        launch.wait_until(lambda: place.events("checkpoint"))
        assert len(launch.ranks()) == 3
    ranks = launch.ranks()
    loaders = [loader for rank in ranks for loader in children_of(rank)]
    assert len(loaders) >= len(ranks) * (moment == "in training")
    os.kill(launch.pid, signal.SIGKILL)
    wait_until_dead([*ranks, *loaders])
    before = place.snapshot()
    time.sleep(0.5)
    assert place.snapshot() == before


def test_at_another_number_of_ranks(make_place):
    model = {"target": "recovery_jobs:Fragile", "args": {"dropout": 0.0}}
    recording = {"target": "exact_jobs:recording", "args": {"folder": ".", "num_steps": 51, "optimizer": "AdamW"}}
    spec = job(model=model, optimizer=recording, train={"steps": 100, "log_every": 4})
    place = make_place("resized", spec)
    recording["args"]["num_steps"] = 1000
    reference = make_place("reference", spec)
    begun = reference.start()
    place.plan([{"moment": "tidy", "rank": 0, "nth": 7 * 2, "victim": "launcher"}])
    assert place.start().wait(60) < 0
    place.finish("--workers", "3")
    assert begun.wait(60) == 0
    assert place.events("start")[1]["step"] == 49
    assert [event["world_size"] for event in place.events("start")] == [2, 3]
    for name, weight in load_file(reference.layout.weights_file).items():
        assert (weight - load_file(place.layout.weights_file)[name]).abs().max() < 1e-9
    ours, theirs = (
        {step: [i for _, (_, ids) in sorted(ranks.items()) for i in ids] for step, ranks in steps.items()}
        for steps in (samples_by_step(place.layout, 3), samples_by_step(reference.layout, 2))
    )
    assert ours == theirs
    losses = [{event["step"]: event["loss"] for event in one.events("train")} for one in (place, reference)]
    assert losses[0].keys() == losses[1].keys()
    assert all(abs(losses[0][step] - losses[1][step]) < 1e-9 for step in losses[0])
    assert_gradients_are_those_of_whole_batches(place, first_step=49)


def assert_gradients_are_those_of_whole_batches(place, first_step):
    """Each gradient since `first_step` is the one that a single process computes sample by sample from the weights."""
    dataset, network = Points(NUM_SAMPLES), Mlp()
    steps = torch.load(place.folder / "rank-0.pt")["steps"]
    assert len(steps) == 100 - first_step
    for number, step in enumerate(steps, start=first_step):
        network.load_state_dict(step["weights"])
        expected = gradient(network, dataset, global_batch(NUM_SAMPLES, BATCH_SIZE, 0, number), mean_over_samples)
        assert relative_difference(step["gradients"], expected) < 1e-12


def mean_over_samples(model, batch):
    inputs, targets = batch
    return torch.nn.functional.cross_entropy(model(inputs), targets), 1
