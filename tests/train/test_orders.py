"""`data.order` in whole runs: at any number of ranks the steps of a plain loop over the same batches."""

import json
import shutil
from pathlib import Path

import order_jobs
import pytest
import torch
from exact_jobs import Mlp, Points
from exact_reference import part, relative_difference
from safetensors.torch import load_file
from torch.nn import functional
from torch.utils.data import default_collate

from distrib.runs.events import read_events

pytestmark = pytest.mark.timeout(120)

SUPPORT = Path(__file__).parents[1] / "support"
NUM_SAMPLES, BATCH_SIZE, SEED, EPOCHS = 23, 5, 3, 4
DATASET = Points(NUM_SAMPLES)
CURRICULUM = {"target": "order_jobs:Curriculum", "args": {"batch_size": BATCH_SIZE}}
ORDERS = {
    "sequential": ("sequential", lambda dataset, epoch, seed: list(range(len(dataset)))),
    "weighted": ("order_jobs:weighted", order_jobs.weighted),
    "bucketed": ("order_jobs:bucketed", order_jobs.bucketed),
    "curriculum": (CURRICULUM, order_jobs.Curriculum(BATCH_SIZE)),
}


def make_spec(order, world_size=1, **sections):
    spec = {
        "name": "ordered",
        "model": "exact_jobs:Mlp",
        "data": {
            "train": {"target": "exact_jobs:Points", "args": {"num_samples": NUM_SAMPLES}},
            "eval": {"target": "exact_jobs:Points", "args": {"num_samples": 7, "seed": 1}},
            "batch_size": BATCH_SIZE,
            "order": order,
        },
        "loss": "torch.nn:CrossEntropyLoss",
        "optimizer": {"target": "torch.optim:SGD", "args": {"lr": 0.1, "momentum": 0.9}},
        "train": {"epochs": EPOCHS, "seed": SEED, "log_every": 1},
        "resources": {"workers": world_size, "device": "cpu"},
        "checkpoint": {"every": "2 epochs"},
    }
    for section, values in sections.items():
        spec[section] = {**spec[section], **values} if isinstance(spec.get(section), dict) else values
    return spec


@pytest.fixture
def launch(tmp_path, command_server):
    """`launch(spec, verb)`: gives a command the job; returns the finished command and its folder."""

    def launch(spec, *arguments, verb="run"):
        for module in ("exact_jobs.py", "order_jobs.py"):
            shutil.copy(SUPPORT / module, tmp_path)
        (tmp_path / "job.yaml").write_text(json.dumps(spec))
        options = ["--runs-dir", "runs", "--run-id", "run", "--record-samples"] if verb == "run" else []
        return command_server.run([verb, "job.yaml", *options, *arguments], tmp_path, timeout=100), tmp_path

    return launch


def batches_of(function, epoch):
    """The global batches of an epoch."""
    found = function(DATASET, epoch, SEED)
    items = found.tolist() if isinstance(found, torch.Tensor) else list(found)
    if isinstance(items[0], list):
        return items
    return [items[start : start + BATCH_SIZE] for start in range(0, len(items), BATCH_SIZE)]


def plain_loop(function):
    """Weights after the run, the loss of each step, and the (epoch, indices) of each step."""
    torch.manual_seed(SEED)
    model = Mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    losses, steps = [], []
    for epoch in range(EPOCHS):
        for batch in batches_of(function, epoch):
            inputs, targets = default_collate([DATASET[index] for index in batch])
            loss = functional.cross_entropy(model(inputs), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
            steps.append((epoch, batch))
    return model.state_dict(), losses, steps


def recorded_samples(folder, world_size):
    """By step, the (epoch, indices) of each rank."""
    lines = [(folder / "runs" / "run" / "samples" / f"rank-{rank}.jsonl").open() for rank in range(world_size)]
    return [[(row["epoch"], row["ids"]) for row in map(json.loads, rows)] for rows in zip(*lines, strict=True)]


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("name", ORDERS)
def test_a_run_is_a_plain_loop_over_the_batches_of_the_order(launch, name, world_size):
    target, function = ORDERS[name]
    finished, folder = launch(make_spec(target, world_size, data={"loader_workers": world_size % 2}))
    assert finished.returncode == 0, finished.stdout + finished.stderr
    weights, losses, steps = plain_loop(function)
    assert relative_difference(load_file(folder / "runs" / "run" / "model.safetensors"), weights) < 1e-12 * len(steps)
    events = read_events(folder / "runs" / "run" / "metrics.jsonl")
    train = [event for event in events if event["event"] == "train"]
    assert [event["loss"] for event in train] == pytest.approx(losses, rel=1e-11)
    assert [event["epoch"] for event in train] == [epoch for epoch, _ in steps]
    counts = torch.tensor([len(batch) for _, batch in steps]).cumsum(0).tolist()
    assert [event["samples"] for event in train] == counts
    assert recorded_samples(folder, world_size) == [
        [(epoch, part(batch, rank, world_size)) for rank in range(world_size)] for epoch, batch in steps
    ]
    ends = [number for number, (epoch, _) in enumerate(steps, 1) if number == len(steps) or steps[number][0] > epoch]
    assert [event["step"] for event in events if event["event"] == "eval"] == ends
    saved = [(event["step"], event["samples"]) for event in events if event["event"] == "checkpoint"]
    assert saved == [(end, counts[end - 1]) for end in ends[1::2]]


def test_the_plan_shows_how_many_samples_an_epoch_has(launch):
    def rows(order):
        finished, _ = launch(make_spec(order), verb="plan")
        assert finished.returncode == 0, finished.stderr
        return [" ".join(line.split()) for line in finished.stdout.splitlines()]

    assert "data 23 samples" in rows("shuffle")
    assert "data 23 samples, in order" in rows("sequential")
    weighted = rows("order_jobs:weighted")
    assert "data 23 samples; 20 in the epoch, by order_jobs:weighted" in weighted
    assert "steps 16 = 4 epochs of 4" in weighted
    bucketed = rows("order_jobs:bucketed")
    assert "steps 20 = 4 epochs of 5" in bucketed
    assert any(line.startswith("batch 1 to 9 samples") for line in bucketed)
    curriculum = rows(CURRICULUM)
    assert "data 23 samples; 5 in the first epoch, by order_jobs:Curriculum" in curriculum
    assert "steps 10 in 4 epochs of 1 to 4" in curriculum
    assert any("every epoch" in line for line in curriculum)


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ("random", "data.order.target: expected shuffle, sequential, or module:attribute of an own order"),
        ({"target": "shuffle", "args": {"seed": 1}}, "data.order.args: shuffle has no args; remove them"),
        ("order_jobs:missing", "data.order: 'order_jobs:missing': order_jobs has no 'missing'"),
        ("order_jobs:Uncallable", "data.order: order_jobs:Uncallable is a class without __call__"),
        ("order_jobs:empty", "data.order: epoch 0 is empty; an order returns at least one index"),
        ("order_jobs:failing", "data.order: order_jobs:failing could not be computed: LookupError: no weights yet"),
        ({"target": "order_jobs:weighted", "args": {"count": 3}}, "data.order.args.count: weighted has no argument"),
        ("torch:zeros_like", "data.order: "),
    ],
)
def test_what_is_no_order_is_refused_in_the_plan(launch, order, message):
    finished, _ = launch(make_spec(order), verb="plan")
    assert finished.returncode == 2
    assert message in finished.stderr
    assert len(finished.stderr.splitlines()) == 1, finished.stderr


def test_steps_per_epoch_is_refused_where_epochs_differ(launch):
    schedule = {"target": "torch.optim.lr_scheduler:StepLR", "args": {"step_size": "$steps_per_epoch"}}
    finished, _ = launch(make_spec(CURRICULUM, schedule=schedule), verb="plan")
    assert finished.returncode == 2
    assert "schedule.args.step_size: $steps_per_epoch is not one number" in finished.stderr
    assert launch(make_spec("order_jobs:bucketed", schedule=schedule), verb="plan")[0].returncode == 0


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ("order_jobs:outside", "order_jobs:outside gave index 23 in epoch 1; the dataset has 23 samples, 0 to 22"),
        ("order_jobs:by_process", "ranks 0 and 1 have different orders of epoch 1; it must depend on nothing but the"),
        ("order_jobs:shrinking", "order_jobs:shrinking gave 3 steps in epoch 1 and 5 in epoch 0; an order whose steps"),
    ],
)
def test_what_goes_wrong_in_a_later_epoch_ends_the_run_in_a_line(launch, order, message):
    finished, folder = launch(make_spec(order, 2))
    assert finished.returncode == 1
    assert "Traceback" not in finished.stdout + finished.stderr
    error = json.loads((folder / "runs" / "run" / "run.json").read_text())["error"]
    assert (error["type"], error["kind"]) == ("OrderError", "user")
    assert error["message"].startswith(f"data.order: {message}")


def test_another_order_is_another_job(launch):
    assert launch(make_spec("sequential"))[0].returncode == 0
    finished, _ = launch(make_spec("shuffle"))
    assert finished.returncode == 2
    assert "data.order: {'target': 'sequential', 'args': {}} then, {'target': 'shuffle'" in finished.stderr
