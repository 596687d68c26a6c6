"""Experiments with real ranks: measurements, a failing size, stop and resume, and refused requests."""

import json
import signal
import sys
import time

import pytest

from distrib.errors import JobError, StoppedError
from distrib.job.reader import Job
from distrib.scale import experiment
from distrib.scale.experiment import Design, Experiment, parse_workers
from distrib.scale.result import read_result, write_result
from tests.support.scale_results import make_result

pytestmark = pytest.mark.timeout(400)
OPTIONS = ("--steps", "6", "--warmup", "1", "--repeats", "1")


def scale(workplace, *arguments):
    command = [sys.executable, "-m", "distrib", "scale", *arguments]
    return workplace.start_command(list(map(str, command)))


def test_sizes_are_measured_and_a_failed_one_has_its_reason(shared_workplace):
    folder = shared_workplace.folder / "results"
    launch = scale(shared_workplace, "job.yaml", "--workers", "2,1,3", *OPTIONS, "--out", folder, "--json")
    assert launch.wait(150) == 0, launch.stderr
    result = launch.answer
    assert result == json.loads((folder / "scale.json").read_text())
    one, two, three = result["sizes"]
    assert (one["workers"], two["workers"], three["workers"]) == (1, 2, 3)
    assert (three["status"], "three are too many" in three["error"]) == ("failed", True)
    assert one["efficiency"] == 1
    assert two["efficiency"] == pytest.approx(one["step_seconds"] / two["step_seconds"] / 2)
    assert any("spans several epochs" in note for note in one["notes"])
    measured = {sample["workers"]: sample.get("measurement") for sample in result["samples"]}
    # Passes of 12 and 6 samples sleep 12 and 9 ms; a loaded machine makes that longer, nothing makes it shorter.
    assert one["split"]["compute"] >= 0.012
    assert two["split"]["compute"] >= 0.009
    assert [size for size, _ in measured[2]["buckets"]] == [200_000.0, 100_000.0]  # DDP closes a bucket once it is full
    fractions = [fraction for _, fraction in measured[2]["buckets"]]
    assert fractions == sorted(fractions)
    assert fractions[0] < 0.9 < fractions[-1]
    assert {step["samples"] for step in measured[1]["steps"]} == {12, 1}
    assert [entry["num_bytes"] for entry in measured[2]["sweep"]][:2] == [1024, 4096]
    assert (folder / "scale.html").read_text().startswith("<!doctype html>")
    assert "3 workers: failed" in launch.stderr


def test_a_stopped_experiment_keeps_its_measurements_and_resumes(shared_workplace):
    folder = shared_workplace.folder / "stopped"
    command = ("job.yaml", "--workers", "1,2", *OPTIONS, "--out", folder)
    launch = scale(shared_workplace, *command)
    file = folder / "scale.json"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (file.exists() and json.loads(file.read_text())["samples"]):
        time.sleep(0.02)
    launch.send(signal.SIGINT)
    assert launch.wait(120) == 130
    assert "--resume" in launch.stderr
    before = json.loads(file.read_text())["samples"]
    assert [sample["workers"] for sample in before] == [1]

    again = scale(shared_workplace, *command)
    assert again.wait(120) == 2
    assert "continue it with --resume" in again.stderr

    resumed = scale(shared_workplace, *command, "--resume")
    assert resumed.wait(120) == 0, resumed.stderr
    after = json.loads(file.read_text())["samples"]
    assert after[0] == before[0]
    assert [sample["workers"] for sample in after] == [1, 2]


@pytest.mark.parametrize("moment", ["notice", "write_result"])
def test_an_interrupt_between_two_runs_keeps_the_measurements(shared_workplace, tmp_path, monkeypatch, moment):
    """A signal may come at any moment, also while no run handles it."""
    num_calls = {"notice": 0, "write_result": 0}

    def interrupted(name, function):
        def call(*arguments):
            function(*arguments)
            num_calls[name] += 1
            if name == moment and num_calls[name] == 2:
                signal.raise_signal(signal.SIGINT)

        return call

    monkeypatch.setattr(experiment, "write_result", interrupted("write_result", write_result))
    monkeypatch.setattr(Experiment, "_measure", lambda _, repeat, size: make_result((size,)).samples[0])
    notice = interrupted("notice", lambda message: None)
    job = Job.load(shared_workplace.job)
    whole = Experiment(job, Design((1, 2), "strong", 5, 1, 1), "local", None, tmp_path / "out", notice)
    with pytest.raises(StoppedError, match=r"stopped after 1 of 2 runs.* repeat the command with .*resume"):
        whole.run(is_resumed=False)
    assert [sample.workers for sample in read_result(tmp_path / "out").samples] == [1]


def test_sizes_take_turns_up_and_down():
    design = Design((1, 2, 4), "strong", 5, 1, 3)
    assert [size for _, size in design.order()] == [1, 2, 4, 4, 2, 1, 1, 2, 4]


@pytest.mark.parametrize(("text", "sizes"), [("4,1,2", (1, 2, 4)), ("2", (2,)), ("2, 2", (2,))])
def test_sizes_are_read(text, sizes):
    assert parse_workers(text) == sizes


@pytest.mark.parametrize("text", ["", "1,", "0,1", "1..4", "two"])
def test_what_is_no_list_of_sizes_is_refused(text):
    with pytest.raises(JobError, match="write 1,2,4"):
        parse_workers(text)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["job.yaml", "--workers", "1,8", "--mode", "weak"], "needs batches of 96"),
        (["job.yaml", "--workers", "1,2", "--device", "cuda"], "resources.device"),
        (["--predict", "job.yaml", "--workers", "8"], "cannot be read as the result of an experiment"),
    ],
)
def test_sizes_that_cannot_be_measured_are_refused_before_anything_starts(shared_workplace, arguments, message):
    folder = shared_workplace.folder / "refused"
    launch = scale(shared_workplace, *arguments, *(["--out", folder] if arguments[0] == "job.yaml" else []))
    assert launch.wait(120) == 2
    assert message in launch.stderr
    assert not folder.exists()
