"""Steps that drive their own updates: at any number of ranks what a plain loop of one process computes."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from exact_jobs import Mlp, Points, Sentences, token_mean
from exact_reference import flat, global_batch
from exact_specs import BATCH_SIZE, NUM_SAMPLES, SEED, WEIGHTLESS
from session_jobs import (
    Encoder,
    Experts,
    Gan,
    Hidden,
    Sam,
    Unlabeled,
    contrast,
    critic_loss,
    generator_loss,
)
from torch.nn import functional
from torch.utils.data import default_collate

from distrib.runs.events import read_events

pytestmark = pytest.mark.timeout(120)

SUPPORT = Path(__file__).parents[2] / "support"
STEPS = 9
TOLERANCE = 1e-12
POINTS = {"target": "exact_jobs:Points", "args": {"num_samples": NUM_SAMPLES}}
UNLABELED = {"target": "session_jobs:Unlabeled", "args": {"num_samples": NUM_SAMPLES}}
SENTENCES = {"target": "exact_jobs:Sentences", "args": {"num_samples": NUM_SAMPLES, "weightless": WEIGHTLESS}}
ADAM = {"target": "torch.optim:Adam", "args": {"lr": 0.01}}
SGD = {"target": "torch.optim:SGD", "args": {"lr": 0.1, "momentum": 0.9}}
LBFGS = {"target": "torch.optim:LBFGS", "args": {"lr": 0.5, "max_iter": 4, "line_search_fn": "strong_wolfe"}}
JOBS = {
    "gan": {"model": "session_jobs:Gan", "train_data": UNLABELED, "optimizer": ADAM},
    "contrastive": {"model": "session_jobs:Encoder", "train_data": UNLABELED, "optimizer": SGD},
    "tokens": {"model": "exact_jobs:Mlp", "train_data": SENTENCES, "optimizer": SGD},
    "experts": {"model": "session_jobs:Experts", "train_data": POINTS, "optimizer": ADAM, "clip_norm": 0.4},
    "by_function": {"model": "exact_jobs:Mlp", "train_data": POINTS, "optimizer": LBFGS},
    "sam": {"model": "exact_jobs:Mlp", "train_data": POINTS, "optimizer": "session_jobs:Sam", "step": "by_function"},
    "carried": {"model": "exact_jobs:Mlp", "train_data": POINTS, "optimizer": SGD},
}


def make_spec(name, world_size, *, model, train_data, optimizer, step=None, clip_norm=None, **sections):
    return {
        "name": name.replace("_", "-"),
        "model": model,
        "data": {"train": train_data, "batch_size": BATCH_SIZE},
        "step": step if isinstance(step, dict) else f"session_jobs:{step or name}",
        "optimizer": optimizer,
        "train": {"steps": STEPS, "seed": SEED, "log_every": 1, "clip_norm": clip_norm},
        "ddp": {"bucket_mb": 0.0004},
        "resources": {"workers": world_size, "device": "cpu"},
        "checkpoint": {"every": "never"},
        **sections,
    }


@pytest.fixture
def launch(tmp_path, command_server):
    """`launch(spec)`: runs a job; returns the finished command and its folder."""

    def launch(spec, *arguments):
        for module in ("exact_jobs.py", "session_jobs.py"):
            shutil.copy(SUPPORT / module, tmp_path)
        (tmp_path / "job.yaml").write_text(json.dumps(spec))
        command = ["run", "job.yaml", "--runs-dir", "runs", "--run-id", "run", *arguments]
        return command_server.run(command, tmp_path, timeout=100), tmp_path

    return launch


def events_of(folder, *kinds):
    return [e for e in read_events(folder / "runs" / "run" / "metrics.jsonl") if e["event"] in kinds]


def model_of(make):
    """The model as a rank builds it."""
    torch.manual_seed(SEED)
    return make()


def batches(dataset):
    for step in range(STEPS):
        yield default_collate([dataset[index] for index in global_batch(NUM_SAMPLES, BATCH_SIZE, SEED, step)])


def plain_gan():
    model = model_of(Gan)
    critic = torch.optim.Adam(model.critic.parameters(), lr=0.01)
    generator = torch.optim.Adam(model.generator.parameters(), lr=0.01)
    for real, noise in batches(Unlabeled(NUM_SAMPLES)):
        for optimizer, loss_of in (
            (critic, lambda real=real, noise=noise: critic_loss(model, real, noise)),
            (generator, lambda noise=noise: generator_loss(model, noise)),
        ):
            model.zero_grad()
            loss_of().backward()
            optimizer.step()
        yield model


def plain_contrastive():
    model = model_of(Encoder)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for points, noise in batches(Unlabeled(NUM_SAMPLES)):
        model.zero_grad()
        second = model(points + 0.1 * functional.pad(noise, (0, points.shape[1] - noise.shape[1])))
        contrast(model(points), second, second, 0).backward()
        optimizer.step()
        yield model


def plain_tokens():
    model = model_of(Mlp)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for batch in batches(Sentences(NUM_SAMPLES, WEIGHTLESS)):
        model.zero_grad()
        result = token_mean(model, batch)
        if result["weight"]:
            result["loss"].backward()
        else:
            for parameter in model.parameters():
                parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        yield model


def plain_experts():
    model = model_of(Experts)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for inputs, targets in batches(Points(NUM_SAMPLES)):
        model.zero_grad()
        functional.cross_entropy(model(inputs), targets).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.4)
        optimizer.step()
        yield model


def plain_by_function(optimizer_of):
    model = model_of(Mlp)
    optimizer = optimizer_of(model.parameters())
    for inputs, targets in batches(Points(NUM_SAMPLES)):

        def closure(inputs=inputs, targets=targets):
            model.zero_grad()
            loss = functional.cross_entropy(model(inputs), targets)
            loss.backward()
            return loss

        optimizer.step(closure)
        yield model


def plain_carried():
    model, hidden = model_of(Mlp), Hidden()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for inputs, targets in batches(Points(NUM_SAMPLES)):
        model.zero_grad()
        outputs = model(inputs)
        functional.cross_entropy(outputs + hidden.value, targets).backward()
        optimizer.step()
        hidden.value = 0.9 * hidden.value + 0.1 * outputs.detach().sum(0) / 9
        yield model


PLAIN = {
    "gan": plain_gan,
    "contrastive": plain_contrastive,
    "tokens": plain_tokens,
    "experts": plain_experts,
    "by_function": lambda: plain_by_function(lambda p: torch.optim.LBFGS(p, **LBFGS["args"])),
    "sam": lambda: plain_by_function(Sam),
    "carried": plain_carried,
}


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("name", JOBS)
def test_every_step_is_that_of_a_plain_loop(launch, name, world_size):
    finished, folder = launch(make_spec(name, world_size, **JOBS[name]))
    assert finished.returncode == 0, finished.stdout + finished.stderr
    for number, model in enumerate(PLAIN[name](), start=1):
        found, expected = torch.load(folder / f"weights-{number:04}.pt"), flat(model.state_dict())
        assert float((flat(found) - expected).norm() / expected.norm()) < TOLERANCE * number, number
    assert number == STEPS


def test_values_are_logged_as_means_over_the_global_batch(launch):
    finished, folder = launch(make_spec("gan", 2, **JOBS["gan"], train={"steps": STEPS, "seed": SEED, "log_every": 4}))
    assert finished.returncode == 0, finished.stdout + finished.stderr
    losses, model = [], model_of(Gan)
    for number, (real, noise) in enumerate(batches(Unlabeled(NUM_SAMPLES)), start=1):
        before = model.state_dict()
        after = torch.load(folder / f"weights-{number:04}.pt")
        model.load_state_dict({k: (after if k.startswith("critic") else before)[k].clone() for k in before})
        losses.append((float(generator_loss(model, noise).detach()), len(real)))
        model.load_state_dict(after)
    start = 0
    for event in events_of(folder, "train"):
        window = losses[start : event["step"]]
        start = event["step"]
        expected = sum(loss * count for loss, count in window) / sum(count for _, count in window)
        assert event["generator_loss"] == pytest.approx(expected, rel=1e-12)
        assert event["loss"] > event["generator_loss"]
    assert start == STEPS


@pytest.mark.parametrize("step", ["contrastive", "returned_contrastive"])
@pytest.mark.parametrize("world_size", [1, 3])
def test_rows_are_gathered_in_evaluation_too(launch, step, world_size):
    evaluation = {"target": "session_jobs:Unlabeled", "args": {"num_samples": 20, "seed": 1}}
    spec = make_spec("contrastive", world_size, **{**JOBS["contrastive"], "step": step})
    spec["data"]["eval"] = evaluation
    finished, folder = launch(spec)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    *_, model = plain_contrastive()
    dataset, total = Unlabeled(20, seed=1), 0.0
    for start in range(0, 20, BATCH_SIZE):
        samples = [dataset[index] for index in range(start, min(start + BATCH_SIZE, 20))]
        points, noise = default_collate(samples)
        second = model(points + 0.1 * functional.pad(noise, (0, points.shape[1] - noise.shape[1])))
        total += float(contrast(model(points), second, second, 0)) * len(samples)
    event = events_of(folder, "eval")[-1]
    assert event["loss"] == pytest.approx(total / 20, rel=1e-9)
    if step == "contrastive":
        assert event["rows"] == pytest.approx((81 + 81 + 4) / 20)


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_stop_of_all_ranks_ends_the_run_after_that_step_as_finished(launch, world_size):
    spec = make_spec("stopping", world_size, **JOBS["carried"], checkpoint={"every": "4 steps"})
    spec["step"] = {"target": "session_jobs:stopping", "args": {"step": 6}}
    spec["train"] |= {"steps": 1000, "log_every": 5, "eval_every": "never"}
    finished, folder = launch(spec)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    (end,) = events_of(folder, "end")
    assert (end["step"], end["message"]) == (6, "the job ended the training: it is good enough")
    assert events_of(folder, "train")[-1]["step"] == 6
    assert [event["step"] for event in events_of(folder, "checkpoint")] == [4, 6]
    assert (folder / "runs" / "run" / "model.safetensors").exists()
    again, _ = launch(spec)
    assert again.returncode == 0
    assert events_of(folder, "end") == [end]


def test_a_stop_of_one_rank_ends_the_run_with_a_warning(launch):
    spec = make_spec("stopping", 2, **JOBS["carried"])
    spec["step"] = {"target": "session_jobs:stopping", "args": {"step": 3, "ranks": [1]}}
    spec["train"] |= {"steps": 1000}
    finished, folder = launch(spec)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "only ranks 1 called session.stop" in events_of(folder, "warning")[0]["message"]
    assert events_of(folder, "end")[0]["message"].startswith("the job ended the training")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": {"accumulate": 2}}, "train.accumulate: 2 micro-batches do not work with session.minimize"),
        (
            {"data": {"eval_batch_size": 4}},
            "data.eval_batch_size: a step with a session is evaluated in global batches",
        ),
        ({"step": {"args": {"session": 1}}}, "step.args.session: distrib passes 'session' to the step"),
        ({"train": {"precision": "fp16"}}, "with train.precision fp16 the loss cannot be a function"),
        ({"step": {"target": "session_jobs:forgetful"}}, "without calling session.minimize in its first step"),
        ({"step": {"target": "session_jobs:unequal"}}, "'hidden' is not the same on ranks 0 and 1"),
    ],
)
def test_what_does_not_work_is_refused_in_a_line(launch, changes, message):
    spec = make_spec("by_function", 2, **JOBS["by_function"], checkpoint={"every": "3 steps"})
    spec["step"] = {"target": spec["step"], "args": {}}
    if "target" in changes.get("step", {}):
        spec["optimizer"] = SGD
    for section, values in changes.items():
        spec[section] = {**spec[section], **values}
    finished, _ = launch(spec)
    assert finished.returncode in (1, 2)
    assert message in finished.stdout + finished.stderr
    assert "Traceback" not in finished.stdout + finished.stderr
