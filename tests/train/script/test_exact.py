"""Scripts with a session: at any number of ranks what a plain loop of one process computes, killed or not."""

import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from exact_jobs import Mlp, Points
from exact_reference import flat
from exact_specs import NUM_SAMPLES
from safetensors.torch import load_file
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from distrib.runs.events import read_events
from distrib.runs.run import Run
from tests.train.session import test_exact as steps_of_jobs
from tests.train.session import test_kinds as kinds_of_jobs
from tests.train.session.test_exact import STEPS, TOLERANCE, batches, model_of

pytestmark = pytest.mark.timeout(120)

SUPPORT = Path(__file__).parents[2] / "support"
MODULES = (
    "exact_jobs.py",
    "session_jobs.py",
    "exact_specs.py",
    "exact_reference.py",
    "script_cases.py",
    "order_jobs.py",
)
LONG = {"sam", "muon", "averaged", "recurrent"}


@pytest.fixture
def launch(tmp_path, command_server):
    """`launch(NAME, workers, ARGUMENT, …, folder=…, options=…)`: runs a case; returns the command and its folder."""

    def launch(name, workers, *arguments, folder="a", options=(), timeout=100):
        place = tmp_path / folder
        place.mkdir(exist_ok=True)
        for module in MODULES:
            shutil.copy(SUPPORT / module, place)
        command = ["run", "script_cases.py", "--workers", workers, "--runs-dir", "runs", "--run-id", "run"]
        command += ["--device", "cpu", *options, "--", name, *arguments]
        return command_server.run(command, place, timeout=timeout), place

    return launch


def run_of(folder):
    return Run(folder / "runs" / "run")


def events_of(folder, *kinds):
    return [e for e in read_events(folder / "runs" / "run" / "metrics.jsonl") if e["event"] in kinds]


def final(folder):
    return load_file(folder / "runs" / "run" / "model.safetensors")


def plain_classification():
    model = model_of(Mlp)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for inputs, targets in batches(Points(NUM_SAMPLES)):
        model.zero_grad()
        functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
        yield model


def plain_scheduled():
    model = model_of(Mlp)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    for inputs, targets in batches(Points(NUM_SAMPLES)):
        model.zero_grad()
        functional.cross_entropy(model(inputs), targets).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.4)
        optimizer.step()
        schedule.step()
        yield model


def plain_experts():
    model = model_of(steps_of_jobs.Experts)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for inputs, targets in batches(Points(NUM_SAMPLES)):
        model.zero_grad()
        functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
        yield model


def plain_averaged():
    model = model_of(Mlp)
    averages = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.8))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for inputs, targets in batches(Points(NUM_SAMPLES)):
        model.zero_grad()
        functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
        averages.update_parameters(model)
        yield averages.module


PLAIN = {
    "plain": plain_classification,
    "scheduled": plain_scheduled,
    "halves": plain_classification,
    "gan": steps_of_jobs.plain_gan,
    "contrastive": steps_of_jobs.plain_contrastive,
    "tokens": steps_of_jobs.plain_tokens,
    "experts": plain_experts,
    "carried": steps_of_jobs.plain_carried,
    "sam": steps_of_jobs.PLAIN["sam"],
    "muon": kinds_of_jobs.plain_muon,
    "averaged": plain_averaged,
    "recurrent": kinds_of_jobs.plain_recurrent,
}
NAMES = [pytest.param(name, marks=pytest.mark.long) if name in LONG else name for name in PLAIN]


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_every_step_is_that_of_a_plain_loop(launch, name, workers):
    finished, folder = launch(name, workers)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    for number, model in enumerate(PLAIN[name](), start=1):
        found, expected = torch.load(folder / f"weights-{number:04}.pt"), flat(model.state_dict())
        assert float((flat(found) - expected).norm() / expected.norm()) < TOLERANCE * number, number
    assert number == STEPS
    assert [event["step"] for event in events_of(folder, "train")] == list(range(1, STEPS + 1))
    assert run_of(folder).status == "finished"


@pytest.mark.parametrize(
    ("name", "workers"),
    [
        ("carried", 2),
        ("gan", 3),
        ("scheduled", 3),
        ("tokens", 2),
        pytest.param("gan", 4, marks=pytest.mark.long),
        pytest.param("recurrent", 2, marks=pytest.mark.long),
        pytest.param("recurrent", 3, marks=pytest.mark.long),
        pytest.param("half", 2, marks=pytest.mark.long),
        pytest.param("averaged", 3, marks=pytest.mark.long),
    ],
)
def test_a_killed_rank_changes_no_bit(launch, name, workers):
    arguments = ["checkpoint=2 steps", "steps=9"]
    finished, reference = launch(name, workers, *arguments, folder="reference")
    assert finished.returncode == 0, finished.stdout + finished.stderr
    again, killed = launch(name, workers, *arguments, f"kill={workers - 1}@6", folder="killed")
    assert again.returncode == 0, again.stdout + again.stderr
    assert [event["step"] for event in events_of(killed, "start")] in ([0, 2], [0, 4])
    assert [event["attempt"] for event in events_of(killed, "restart")] == [1]
    expected, found = final(reference), final(killed)
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    losses = [{e["step"]: e["loss"] for e in events_of(folder, "train")} for folder in (reference, killed)]
    assert losses[0] == losses[1]


@pytest.mark.long
@pytest.mark.ray
@pytest.mark.timeout(400)
@pytest.mark.parametrize(("name", "workers"), [("scheduled", 2), ("recurrent", 3)])
def test_a_killed_rank_changes_no_bit_on_ray(launch, name, workers):
    """The reference is a local run."""
    arguments = ["checkpoint=2 steps", f"steps={STEPS}"]
    finished, reference = launch(name, workers, *arguments, folder="reference")
    assert finished.returncode == 0, finished.stdout + finished.stderr
    killed = shutil.copytree(reference, reference.with_name("killed"), ignore=shutil.ignore_patterns("runs", "*.pt"))
    command = [sys.executable, "-m", "distrib", "run", "script_cases.py", "--on", "ray", "--device", "cpu"]
    command += ["--workers", str(workers), "--runs-dir", "runs", "--run-id", "run"]
    environment = {**os.environ, "PYTHONPATH": str(SUPPORT.parents[1]), "RAY_USAGE_STATS_ENABLED": "0"}
    again = subprocess.run(
        [*command, "--", name, *arguments, f"kill={workers - 1}@6"],
        cwd=killed,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert again.returncode == 0, again.stdout + again.stderr
    assert [event["attempt"] for event in events_of(killed, "restart")] == [1]
    expected, found = final(reference), final(killed)
    assert all(torch.equal(found[key], expected[key]) for key in expected)


@pytest.mark.parametrize("workers", [2, 3])
def test_a_stopped_run_continues_at_another_number_of_workers(launch, workers):
    arguments = ["checkpoint=100 steps", "steps=9", "stop=1@3"]
    stopped, folder = launch("scheduled", 2, *arguments)
    assert stopped.returncode == 130, stopped.stdout + stopped.stderr
    assert run_of(folder).status == "stopped"
    (saved,) = events_of(folder, "checkpoint")
    assert 3 <= saved["step"] < STEPS
    assert not (folder / "runs" / "run" / "model.safetensors").exists()
    again, _ = launch("scheduled", workers, *arguments)
    assert again.returncode == 0, again.stdout + again.stderr
    assert [event["step"] for event in events_of(folder, "start")] == [0, saved["step"]]
    *_, model = plain_scheduled()
    found, expected = flat(final(folder)), flat(model.state_dict())
    assert float((found - expected).norm() / expected.norm()) < TOLERANCE * STEPS
    rates = [event["lr"] for event in events_of(folder, "train")]
    assert rates == pytest.approx([0.1 * 0.9 ** (step + 1) for step in range(STEPS)])


def test_loops_that_have_ended_are_skipped_after_a_restart(launch):
    arguments = ["checkpoint=1 steps"]
    finished, reference = launch("stages", 2, *arguments, folder="reference")
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert (reference / "stages.txt").read_text() == "0 0 7\n0 1 15\n"
    again, killed = launch("stages", 2, *arguments, "kill=1@12", folder="killed")
    assert again.returncode == 0, again.stdout + again.stderr
    number, first = events_of(killed, "start")[1]["attempt"], events_of(killed, "start")[1]["step"]
    assert (number, 7 <= first < 12) == (1, True)
    assert (killed / "stages.txt").read_text() == f"0 0 7\n1 0 {first}\n1 1 15\n"
    assert all(torch.equal(final(killed)[key], value) for key, value in final(reference).items())
    assert events_of(killed, "train")[-1]["samples"] == 47 + 2 * 9 - 9 + 60


def test_data_that_the_script_makes_is_the_same_on_all_ranks_and_after_a_restart(launch):
    """As games that the model plays, whose number depends on its weights: kept, they continue to the same bits."""
    arguments = ["checkpoint=3 steps"]
    alone, one = launch("played", 1, *arguments, folder="one")
    finished, two = launch("played", 2, *arguments, folder="two")
    assert alone.returncode == finished.returncode == 0, finished.stdout + finished.stderr
    assert (one / "games.txt").read_text() == (two / "games.txt").read_text()
    assert len({line.split()[2] for line in (two / "games.txt").read_text().splitlines()}) == 3
    assert float((flat(final(two)) - flat(final(one))).norm() / flat(final(one)).norm()) < 1e-10
    loops = [int(line.split()[2]) for line in (two / "games.txt").read_text().splitlines()]
    ends = list(itertools.accumulate(2 * -(-num_samples // 7) for num_samples in loops))
    assert ends[1] + 5 < ends[2]
    again, killed = launch("played", 2, *arguments, f"kill=1@{ends[1] + 5}", folder="killed")
    assert again.returncode == 0, again.stdout + again.stderr
    start = events_of(killed, "start")[1]
    assert (start["attempt"], ends[0] <= start["step"] < ends[1] + 5) == (1, True)
    assert all(torch.equal(final(killed)[key], value) for key, value in final(two).items())
    assert not events_of(killed, "warning")


@pytest.mark.long
def test_data_that_a_restart_does_not_make_again_is_reported(launch):
    finished, folder = launch("forgotten", 2, "checkpoint=2 steps", "kill=1@5")
    assert finished.returncode == 0, finished.stdout + finished.stderr
    (warning,) = events_of(folder, "warning")
    assert "is another than before the run was restarted" in warning["message"]
    assert "keep it with session.keep" in warning["message"]


@pytest.mark.long
def test_a_stop_ends_all_loops_and_what_is_logged_after_them_is_the_result(launch):
    finished, folder = launch("stopping", 3, "checkpoint=2 steps", options=["--record-samples"])
    assert finished.returncode == 0, finished.stdout + finished.stderr
    (end,) = events_of(folder, "end")
    assert (end["step"], end["message"]) == (3, "the job ended the training: it is good enough")
    (result,) = events_of(folder, "eval")
    assert (result["step"], result["rows"], result["late"]) == (3, 20, pytest.approx((1.5 + 2.5 + 2.5) / 3))
    assert result["mean_input"] == pytest.approx(float(Points(20, seed=1).inputs.mean()), rel=1e-12)
    assert run_of(folder).metrics["rows"] == 20
    records = [
        [json.loads(line)["ids"] for line in run_of(folder).layout.samples_file(rank).read_text().splitlines()]
        for rank in range(3)
    ]
    used = [len(ids) for step in zip(*records, strict=True) for ids in step]
    samples = [event["samples"] for event in events_of(folder, "train")]
    assert samples == [sum(used[:3]), sum(used[:6]), sum(used)]
    again, _ = launch("stopping", 3, "checkpoint=2 steps")
    assert again.returncode == 0
    assert "has finished already; --fresh starts a new run beside it" in again.stdout


def test_an_evaluation_covers_each_row_once(launch):
    finished, folder = launch("evaluated", 3)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    logged = [event["accuracy"] for event in events_of(folder, "train") if "accuracy" in event]
    assert len(logged) == 2
    assert all(0 < accuracy <= 1 for accuracy in logged)


def test_an_error_of_the_script_names_its_rank_and_line(launch):
    finished, folder = launch("plain", 2, "raise=1@3")
    assert finished.returncode == 1
    error = run_of(folder).error
    assert (error["rank"], error["type"], error["message"]) == (1, "ValueError", "no such label")
    assert 'script_cases.py", line' in error["traceback"]
    assert "distrib/train" not in error["traceback"]
    assert len(events_of(folder, "start")) == 1
