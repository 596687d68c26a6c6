"""`distrib list` on synthetic runs."""

import json
import os
import pty
import re
import subprocess
import sys
import termios
import time

import pytest

from distrib.runs.events import EventWriter
from distrib.runs.record import create_record, update_record
from distrib.runs.run import Run


@pytest.fixture
def runs(tmp_path):
    """A finished, a failed, a running and an unreadable run, and one whose launcher was killed."""
    folder = tmp_path / "runs"
    for number, name in enumerate(["digits-20260304-101112-ab12", "digits-20260304-111213-cd34", "running"]):
        create_record(folder / name, name="digits", request={}, schedule={"total_steps": 460}, provenance={})
        run = Run(folder / name)
        with EventWriter(run.layout.metrics_file, 0) as writer:
            writer.write("train", step=230 + number, epoch=1, samples=9, loss=0.5)
            writer.write("eval", step=230, epoch=1, samples=9, loss=0.25, accuracy=0.978)
        started = time.time() - 300 * (number + 1)
        update_record(run.folder, started=started, launched=started)
    started = time.time() - 300
    update_record(folder / "digits-20260304-101112-ab12", status="finished", ended=started + 75)
    error = {"type": "ValueError", "message": "no such label\nat all", "kind": "user"}
    update_record(folder / "digits-20260304-111213-cd34", status="failed", ended=started, error=error)
    code = "import sys; from pathlib import Path; from distrib.runs.record import create_record; \
create_record(Path(sys.argv[1]), name='n', request={}, schedule=None, provenance={})"
    subprocess.run([sys.executable, "-c", code, str(folder / "abandoned")], check=True)
    (folder / "broken").mkdir()
    (folder / "broken" / "run.json").write_text("{")
    return folder


def test_the_table(distrib, runs):
    result = distrib("list")
    assert (result.returncode, result.stderr) == (0, "")
    header, *rows = [re.split(r"  +", line) for line in result.stdout.splitlines()]
    assert header == ["run", "status", "steps", "age", "took", "result"]
    assert rows[0][:3] == ["abandoned", "failed", "0"]
    assert rows[0][-1].startswith("LauncherDied: the launcher (process ")
    assert rows[1] == [
        *("digits-20260304-101112-ab12", "finished", "230/460", "5m", "1:15"),
        *("accuracy 0.9780", "loss 0.2500"),
    ]
    assert rows[2][-1] == "ValueError: no such label"
    assert rows[3][:4] == ["running", "running", "232/460", "15m"]
    assert rows[4][:2] == ["broken", "unreadable"]
    assert "run.json cannot be read" in rows[4][-1]


def test_the_table_in_a_terminal_of_80_columns(distrib, runs):
    parent, child = pty.openpty()
    termios.tcsetwinsize(child, (24, 80))
    distrib("list", capture_output=False, stdout=child)
    os.close(child)
    lines = os.read(parent, 10_000).decode().splitlines()
    os.close(parent)
    assert max(map(len, lines)) <= 80
    assert any(re.search(r"finished +230/460 +5m +1:15 +accuracy 0\.9780", line) for line in lines)


def test_json(distrib, runs):
    result = distrib("list", "--json")
    listed = {run["id"]: run for run in json.loads(result.stdout)["runs"]}
    finished = listed["digits-20260304-101112-ab12"]
    assert finished["metrics"] == {"loss": 0.25, "accuracy": 0.978}
    assert (finished["status"], finished["steps"], finished["total_steps"]) == ("finished", 230, 460)
    assert finished["duration_seconds"] == pytest.approx(75, abs=1)
    assert listed["abandoned"]["error"]["kind"] == "infrastructure"
    assert listed["broken"]["status"] == "unreadable"


def test_another_folder(distrib, runs):
    elsewhere = runs.rename(runs.parent / "elsewhere")
    assert "running" in distrib("list", "--runs-dir", elsewhere).stdout
    assert "running" in distrib("list", env={"DISTRIB_RUNS_DIR": str(elsewhere)}).stdout


def test_no_runs(distrib, tmp_path):
    assert distrib("list").stdout == "No runs: there is no folder runs.\n"
    (tmp_path / "runs").mkdir()
    assert distrib("list").stdout == "No runs in runs.\n"
    assert json.loads(distrib("list", "--json").stdout) == {"runs": []}


@pytest.mark.parametrize("text", ['{"schedule": 3}', "[]", '{"status": "running", "owner": {"pid": "x"}}'])
def test_strange_records_are_no_traceback(distrib, tmp_path, text):
    (tmp_path / "runs" / "strange").mkdir(parents=True)
    (tmp_path / "runs" / "strange" / "run.json").write_text(text)
    result = distrib("list")
    assert (result.returncode, result.stderr) == (0, "")
    assert "strange" in result.stdout


def ids(result):
    assert (result.returncode, result.stderr) == (0, "")
    return [line.split()[0] for line in result.stdout.splitlines()[1:]]


JOB = """
name: digits
model: a.b:Model
data: {{train: a.b:Data, batch_size: {batch_size}}}
loss: a.b:Loss
optimizer: {{target: torch.optim:AdamW, args: {{lr: {lr}, path: "${{HOME_OF_NOBODY}}"}}}}
train: {{epochs: 2}}
"""


@pytest.fixture
def sweep(tmp_path):
    """Three runs of a job that differ in learning rate and batch size; the newest is the best."""
    for number, (lr, batch_size) in enumerate([(0.1, 8), (0.01, 8), (0.001, 16)]):
        folder = tmp_path / "runs" / f"run-{number}"
        create_record(folder, name="digits", request={}, schedule={"total_steps": 10}, provenance={})
        run = Run(folder)
        run.layout.job_file.write_text(JOB.format(lr=lr, batch_size=batch_size))
        with EventWriter(run.layout.metrics_file, 0) as writer:
            writer.write("eval", step=10, epoch=1, samples=80, loss=1 - number / 10, accuracy=0.5 + number / 10)
        started = time.time() - 7200 * (3 - number)
        update_record(folder, status="finished", started=started, launched=started, ended=started + 10 * number)
    return tmp_path / "runs"


def test_selections(distrib, sweep):
    assert ids(distrib("list", "--job", "digits", "--metric", "accuracy>=0.6", "--sort", "-accuracy")) == [
        "run-1",
        "run-2",
    ]
    assert ids(distrib("list", "--status", "finished", "--since", "5 hours", "--limit", "1")) == ["run-2"]
    assert distrib("list", "--status", "failed").stdout == "No such runs in runs.\n"


@pytest.mark.parametrize("arguments", [["--since", "soon"], ["--metric", "a b"], ["--status", "done"]])
def test_selections_that_mean_nothing(distrib, sweep, arguments):
    result = distrib("list", *arguments)
    assert (result.returncode, len(result.stderr.splitlines())) == (2, 1)
    assert arguments[0] in result.stderr


def test_columns_for_the_fields_that_differ(distrib, sweep):
    header, first, *_ = [re.split(r"  +", line) for line in distrib("list").stdout.splitlines()]
    assert header == ["run", "status", "steps", "age", "took", "batch_size", "lr", "result"]
    assert first[5:7] == ["16", "0.001000"]
    listed = json.loads(distrib("list", "--json").stdout)["runs"]
    assert listed[2]["spec"] == {"data.batch_size": 8, "optimizer.args.lr": 0.1}


def test_one_line_a_run_whatever_the_error(distrib, runs):
    error = {"type": "E", "message": "\x1b[2Jone\r\ttwo\n\nthree \udcff", "kind": "user"}
    update_record(runs / "running", status="failed", error=error)
    lines = distrib("list", "--status", "failed").stdout.splitlines()
    assert len(lines) == 4
    assert any(line.endswith("E:  [2Jone two") for line in lines)


def test_compare(distrib, sweep):
    compared = json.loads(distrib("compare", "run-0", "run-2", "--json").stdout)
    assert compared["runs"] == ["run-0", "run-2"]
    assert compared["spec"] == {"data.batch_size": [8, 16], "optimizer.args.lr": [0.1, 0.001]}
    assert compared["result"]["accuracy"] == [0.5, 0.7]
    assert compared["result"]["status"] == ["finished", "finished"]
    text = distrib("compare", "run-0", "run-2").stdout
    assert re.search(r"optimizer\.args\.lr +0\.1000 +0\.001000 +-99\.0%", text)
    result = distrib("compare", "run-0", "run-9")
    assert (result.returncode, len(result.stderr.splitlines())) == (2, 1)
    assert distrib("compare", "run-0").returncode == 2


def test_logs_without_output(distrib, runs):
    result = distrib("logs", "digits-20260304-101112-ab12")
    assert (result.returncode, result.stdout) == (0, "")
    assert result.stderr == "digits-20260304-101112-ab12: the ranks have printed nothing\n"
