"""The summary of a run that has ended."""

import json
import math

import pytest

from distrib.observe.resume_command import resume_command
from distrib.observe.summary import samples_per_second, summarize, summary_lines
from distrib.runs.record import update_record

ERROR = {
    "rank": 1,
    "host": "node2",
    "type": "ValueError",
    "message": "no such label",
    "traceback": 'Traceback (most recent call last):\n  File "a.py", line 3, in f\nValueError: no such label\n',
    "kind": "user",
    "completed_steps": 6,
    "phase": "evaluation",
    "others": "ranks 0, 2: PeerFailedError",
}


@pytest.fixture
def finished(run, writer):
    writer.write("train", step=1, epoch=0, samples=8, loss=1.0, samples_per_second=10.0)
    writer.write("train", step=12, epoch=4, samples=84, loss=0.5, samples_per_second=152.0)
    writer.write("eval", step=12, epoch=4, samples=84, loss=0.25, accuracy=0.978)
    started = run.record["started"]
    update_record(run.folder, status="finished", ended=started + 65, first_step_seconds=3.61)
    run.weights.touch()
    return run


def test_a_finished_run(finished, monkeypatch):
    monkeypatch.chdir(finished.folder.parent.parent)
    assert summary_lines(finished) == [
        "finished  accuracy 0.9780  loss 0.2500",
        "  duration    1 min 5 s",
        "  first step  3.6 s after the command",
        "  speed       152 samples/s",
        "  run         runs/digits-1",
        "  weights     runs/digits-1/model.safetensors",
        "  use it      distrib serve digits-1\n              or predict, export, latency in place of serve",
        "  all runs    distrib list",
    ]


def test_a_failed_run_shows_the_culprit_its_traceback_and_its_log(run, writer):
    for step, loss in ((1, 2.5), (2, 1.75), (4, 1.5), (5, 1.0)):
        writer.write("train", step=step, epoch=1, samples=8 * step, loss=loss, samples_per_second=10.0)
    run.layout.rank_log(1).parent.mkdir()
    run.layout.rank_log(1).touch()
    update_record(run.folder, status="failed", ended=run.record["started"] + 2, error=ERROR)
    assert "\n".join(summary_lines(run)).splitlines() == [
        "failed  rank 1 on node2: ValueError: no such label",
        "",
        *ERROR["traceback"].splitlines(),
        "",
        "  steps       6 of 12 done",
        "  duration    2.0 s",
        f"  run         {run.folder}",
        f"  log         {run.folder}/logs/rank-1.log",
        "  last steps  6 completed, failed in evaluation; loss 1.750 at step 2, 1.500 at step 4, 1.000 at step 5",
        "  then        ranks 0, 2: PeerFailedError",
        f"  continue    distrib run {run.folder}/job.yaml --run-id digits-1",
        f"  all runs    distrib list --runs-dir {run.folder.parent}",
    ]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ({"phase": "start"}, "none, failed before the first step"),
        (
            {"phase": "evaluation", "completed_steps": 0},
            "none, failed before the first step, in the trial with a batch of data.eval",
        ),
        ({"phase": "forward", "completed_steps": 0}, "failed in forward of the first step"),
        ({"type": "NonFiniteLossError", "phase": "optimizer", "completed_steps": 3}, "3 completed"),
    ],
)
def test_where_a_rank_failed(run, writer, error, expected):
    update_record(run.folder, status="failed", error={**ERROR, "completed_steps": None, **error})
    assert f"  last steps  {expected}" in summary_lines(run)


def test_a_stopped_run_shows_its_progress_and_not_what_it_waited_for(run, writer):
    update_record(run.folder, activity={"message": "press Ctrl-C again", "since": 1.0})
    update_record(run.folder, status="stopped")
    assert run.record["activity"] is None
    lines = summary_lines(run)
    assert lines[0] == "stopped"
    assert "  steps       0 of 12 done" in lines


def test_a_running_run_shows_its_activity_and_step(run, writer):
    writer.write("train", step=5, epoch=1, samples=37, loss=1.0, samples_per_second=10.0)
    writer.write("restart", step=3, epoch=1, samples=21, message="rank 1 on node2 failed: Lost")
    text = "\n".join(summary_lines(run))
    assert "  now         restarting: rank 1 on node2 failed: Lost, last event " in text
    assert "  steps       3 of 12 done" in text
    update_record(run.folder, activity={"message": "waiting for 2 hosts", "since": 1.0})
    assert "  now         waiting for 2 hosts, last event " in "\n".join(summary_lines(run))
    assert summarize(run, None)["activity"] == "waiting for 2 hosts"


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["/usr/bin/distrib", "run", "job.yaml"], "distrib run job.yaml --run-id digits-1"),
        (
            [
                "distrib",
                "run",
                "a b.yaml",
                "--fresh",
                "--run-id=x",
                "--set",
                "train.epochs=3",
                "--run-id",
                "y",
                "--json",
            ],
            "distrib run 'a b.yaml' --set train.epochs=3 --run-id digits-1",
        ),
        (["distrib", "run", "train.py", "--", "--run-id", "1"], "distrib run train.py --run-id digits-1 -- --run-id 1"),
        (["train.py"], "distrib run {folder}/job.yaml --run-id digits-1"),
        ("damaged", "distrib run {folder}/job.yaml --run-id digits-1"),
    ],
)
def test_the_command_that_continues(run, command, expected):
    update_record(run.folder, provenance={"command": command})
    assert resume_command(run) == expected.format(folder=run.folder)


def test_an_error_without_a_rank_names_the_host(run):
    error = {**ERROR, "rank": None, "traceback": None}
    update_record(run.folder, status="failed", error=error)
    assert summary_lines(run)[0] == "failed  on node2: ValueError: no such label"


def test_the_summary_for_programs(finished):
    summary = json.loads(json.dumps(summarize(finished, 0), allow_nan=False))
    assert summary == {
        "id": "digits-1",
        "folder": str(finished.folder),
        "status": "finished",
        "exit_code": 0,
        "step": 12,
        "total_steps": 12,
        "activity": None,
        "restarts": 0,
        "metrics": {"loss": 0.25, "accuracy": 0.978},
        "duration_seconds": 65.0,
        "first_step_seconds": 3.61,
        "samples_per_second": 152.0,
        "error": None,
        "ranks": [],
    }


def test_speed_is_all_samples_over_all_time_but_the_first_step(train):
    assert samples_per_second([]) is None
    assert samples_per_second([train(1)]) == 80.0
    events = [
        train(1, samples_per_second=1.0),
        train(11, samples_per_second=40.0),
        train(31, samples_per_second=80.0),
    ]
    seconds = 80 / 40 + 160 / 80
    assert samples_per_second(events) == pytest.approx(240 / seconds)


def test_speed_of_a_run_that_was_restarted(train):
    events = [train(1), train(11), train(5, attempt=1), train(15, attempt=1, samples_per_second=40.0)]
    speed = samples_per_second(events)
    assert speed is not None
    assert math.isclose(speed, 160 / (80 / 80 + 80 / 40))
