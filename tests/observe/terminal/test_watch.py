"""`distrib watch` as a separate process, on runs of other processes."""

import io
import json
import os
import pty
import re
import select
import subprocess
import sys
import termios
import time
from contextlib import ExitStack

import pytest

from distrib.observe.terminal.watch import RunWatcher
from distrib.runs.storage.folder.preparing import is_being_prepared, preparation_noted
from tests.support import observed_run


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "runs").mkdir()
    return tmp_path / "runs" / "digits-1"


@pytest.fixture
def train(folder):
    """Starts a process that owns the run and writes its events; waits for the first of them."""
    processes = []

    def start(first, last, attempt, end):
        arguments = [str(folder), str(first), str(last), str(attempt), end]
        process = subprocess.Popen([sys.executable, observed_run.__file__, *arguments])
        processes.append(process)
        file, size = folder / "metrics.jsonl", 0 if attempt == 0 else (folder / "metrics.jsonl").stat().st_size
        deadline = time.monotonic() + 30
        while not (file.exists() and file.stat().st_size > size):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()


@pytest.fixture
def hold(folder):
    """Makes the process of `train` stand still after its next step, for as long as this file exists."""
    file = folder.parent / "hold"
    file.touch()
    return file


@pytest.fixture
def watch(tmp_path):
    processes = []

    def start(*arguments, **options):
        command = [sys.executable, "-m", "distrib", "watch", *map(str, arguments)]
        known = {"cwd": tmp_path, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen(command, **{**known, **options})
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()


def test_a_run_of_another_process_from_the_middle_to_its_end(train, watch, hold):
    train(1, 12, 0, "finished")
    process = watch("digits-1")
    first = process.stdout.readline()
    hold.unlink()
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    lines = (first + out).splitlines()
    assert lines[0] == "digits-1: 2 workers on cpu, 12 steps, running"
    assert any(line.startswith("epoch 1/4  step  3/12  evaluation: metric_0 0.000") for line in lines)
    assert "epoch 4/4  step 12/12  loss 0.08333  80.00 samples/s" in lines
    assert any(line.startswith("finished  metric_0") for line in lines)


def test_a_run_that_has_ended(train, watch):
    train(1, 2, 0, "stopped").wait(timeout=30)
    process = watch("digits-1")
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopped  loss 0.5000" in out


def test_a_launcher_that_is_killed_and_a_run_that_is_resumed(train, watch, folder):
    first = train(1, 5, 0, "killed")
    process = watch("digits-1")
    head = process.stdout.readline()
    (folder.parent / "go").touch()
    first.wait(timeout=30)
    out = ""
    while "the launcher has died" not in out:
        line = process.stdout.readline()
        assert line, out
        out += line
    train(4, 12, 1, "finished")
    rest, err = process.communicate(timeout=60)
    out += rest
    assert (process.returncode, err) == (0, "")
    assert head == "digits-1: 2 workers on cpu, 12 steps, running\n"
    assert out.count("the launcher has died; waiting for the run to be resumed") == 1
    assert "epoch 4/4  step 12/12  loss 0.08333" in out


def test_a_launcher_that_died_before(train, watch, folder):
    (folder.parent / "go").touch()
    train(1, 3, 0, "killed").wait(timeout=30)
    process = watch("digits-1")
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "LauncherDied" in out


def test_damaged_events_are_noted(train, watch, folder):
    process = train(1, 12, 0, "finished")
    process.wait(timeout=30)
    lines = (folder / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    lines[5:5] = [b'{"time": 1, "attempt"\n', b"\x00\x00\xff\n", b"[1]\n", b'{"event": "train", "step": "x"}\n']
    (folder / "metrics.jsonl").write_bytes(b"".join(lines) + b'{"time": 17')
    watcher = watch("digits-1")
    out, err = watcher.communicate(timeout=60)
    assert (watcher.returncode, err) == (0, "")
    assert "metrics.jsonl has 5 damaged lines, left out here" in out


def test_a_folder_that_is_no_run(watch, tmp_path):
    (tmp_path / "runs" / "empty").mkdir(parents=True)
    for name in ("empty", tmp_path / "runs" / "empty", "missing"):
        process = watch(name)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out, len(err.splitlines())) == (2, "", 1)


def test_ctrl_c_ends_the_watching_only(train, watch, hold):
    training = train(1, 12, 0, "finished")
    process = watch("digits-1", stdout=subprocess.PIPE)
    assert process.stdout.readline()
    process.send_signal(2)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "digits-1 continues; distrib stop digits-1 stops it\n")
    hold.unlink()
    assert training.wait(timeout=30) == 0


def test_a_terminal_of_80_columns_moves_without_events_and_keeps_its_bar(train, watch, hold):
    parent, child = pty.openpty()
    termios.tcsetwinsize(child, (24, 80))
    train(1, 12, 0, "finished")
    process = watch("digits-1", stdout=child, env={**os.environ, "TERM": "xterm", "COLUMNS": ""})
    os.close(child)
    received = b""
    try:
        while select.select([parent], [], [], 30)[0] and (chunk := os.read(parent, 65536)):
            received += chunk
            if len(re.findall(rb"step +1/12", received)) >= 3:  # it is drawn again while nothing happens
                hold.unlink(missing_ok=True)
    except OSError:
        pass  # the other end is closed
    os.close(parent)
    assert process.wait(timeout=30) == 0
    assert not hold.exists()
    text = received.decode()
    lines = [
        line.rstrip() for line in re.split(r"[\r\n]+|\x1b\[2K", re.sub(r"\x1b\[[0-9;]*m", "", text)) if line.strip()
    ]
    lines = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line) for line in lines]
    assert max(map(len, lines)) <= 80
    numbers = " ".join(line for line in lines if "metric_" in line)
    assert all(f"metric_{number} {number / 7:.4g}"[:14] in numbers for number in range(1, 6))
    positions = [line for line in lines if re.match(r"epoch ./4  step +\d+/12  (?!eval|loss)", line)]
    assert len(positions) >= 3
    assert all(re.search("[━─]{8}", line) for line in positions)


def test_the_record_contains_what_a_run_waits_for(run, plan, watch, tmp_path):
    from distrib.observe.activity import ActivityRecorder

    recorder = ActivityRecorder()
    recorder.started(run, plan)
    recorder.waiting("waiting for 2 hosts")
    assert json.loads(run.layout.record_file.read_text())["activity"]["message"] == "waiting for 2 hosts"
    process = watch("digits-1")
    assert "waiting for 2 hosts" in "".join(process.stdout.readline() for _ in range(2))
    recorder.event({"event": "start", "step": 0})
    assert json.loads(run.layout.record_file.read_text())["activity"] is None


class _Following:
    """Stands for a display, and does what a launcher would at what is displayed."""

    def __init__(self, run, launched):
        self.shown = []
        self._run = run
        self._launched = launched

    def attach(self, title, state):
        self.shown.append(title)

    def waiting(self, reason):
        self.shown.append(reason)
        if reason == "a launcher is about to continue the run":
            self._launched.close()
            self._run.update_record(status="running")

    def idle(self):
        if self._run.status == "running":
            self._run.update_record(status="finished")

    def finished(self, run):
        self.shown.append(run.status)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass


def test_a_run_that_a_launcher_is_about_to_continue(run, monkeypatch):
    run.update_record(status="stopped", activity={"message": "press Ctrl-C again", "since": 1.0})
    with ExitStack() as launched:
        launched.enter_context(preparation_noted(run.folder))
        display = _Following(run, launched)
        monkeypatch.setattr("distrib.observe.terminal.watch.make_progress", lambda *_: display)
        RunWatcher(run, io.StringIO()).watch()
    assert display.shown == [
        "digits-1: 2 workers on cpu, 12 steps, continuing",
        "a launcher is about to continue the run",
        "finished",
    ]


def test_a_launcher_that_died_while_it_prepared_is_not_waited_for(run):
    run.update_record(status="stopped")
    with preparation_noted(run.folder):
        assert is_being_prepared(run.folder)
        notice = run.layout.launcher_file
        notice.write_text(json.dumps({**json.loads(notice.read_text()), "start_time": 1.0}))
        assert not is_being_prepared(run.folder)
    assert not notice.exists()


def test_what_an_earlier_launch_waited_for_is_removed(run, plan):
    from distrib.observe.activity import ActivityRecorder

    for reason in ("stopping at the next agreed step", None):
        recorder = ActivityRecorder()
        recorder.started(run, plan)
        assert run.record["activity"] is None
        if reason is not None:
            recorder.waiting(reason)
            assert run.record["activity"]["message"] == reason
