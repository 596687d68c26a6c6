"""What is seen of a run while it goes."""

import io
import re
import subprocess
import sys
import threading

import pytest
from rich.console import Console

from distrib.observe.history import RunLength
from distrib.observe.observer import Observer
from distrib.observe.state import RunState
from distrib.observe.terminal.live import LiveProgress
from distrib.observe.terminal.plain import PlainProgress
from distrib.observe.terminal.progress import make_progress
from distrib.observe.terminal.view import render

EVAL = {"time": 100, "attempt": 0, "event": "eval", "step": 3, "epoch": 1, "samples": 21, "loss": 0.5, "accuracy": 0.75}
WARNING = {"time": 100, "attempt": 0, "event": "warning", "step": 4, "epoch": 1, "samples": 29, "message": "no [loss]"}


def test_plain_lines(run, plan, train):
    stream = io.StringIO()
    progress: Observer = PlainProgress(stream)
    progress.started(run, plan)
    progress.event({**WARNING, "step": 1})
    for event in (train(1), train(2), EVAL, WARNING, train(11), train(12)):
        progress.event(event)
    progress.output(0, "host1", "hello")
    progress.idle()
    progress.notice("the run is stopping")
    progress.finished(run)
    assert stream.getvalue().splitlines() == [
        "digits-1: 2 workers on cpu, 12 steps of 8 samples",
        "epoch 1/4  step  1/12  warning: no [loss]",
        "epoch 1/4  step  1/12  loss 1.000  80.00 samples/s",
        "epoch 1/4  step  3/12  evaluation: accuracy 0.7500  loss 0.5000",
        "epoch 2/4  step  4/12  warning: no [loss]",
        "epoch 4/4  step 12/12  loss 0.08333  80.00 samples/s",
        "[rank 0 on host1] hello",
        "the run is stopping",
    ]


def test_plain_training_lines_keep_their_distance(run, plan, train):
    stream = io.StringIO()
    progress = PlainProgress(stream)
    progress.started(run, plan)
    for step in range(1, 12):
        progress.event(train(step, time=100 + 0.9 * step))
    steps = [line.split("step")[1].split("/")[0].strip() for line in stream.getvalue().splitlines()[1:]]
    assert steps == ["1", "4", "7", "10"]


def test_events_for_programs_have_no_line(run, plan):
    stream = io.StringIO()
    progress = PlainProgress(stream)
    progress.event({"time": 1, "attempt": 0, "event": "start", "step": 0, "epoch": 0, "samples": 0, "signature": [1]})
    assert stream.getvalue() == ""


def test_a_reader_that_goes_away_does_not_stop_the_training(run, plan):
    with subprocess.Popen([sys.executable, "-c", ""], stdin=subprocess.PIPE, text=True) as reader:
        reader.wait()
        progress = PlainProgress(reader.stdin)
        for _ in range(3):
            progress.output(0, "host1", "no reader")
        progress.finished(run)
        assert progress.finished_run is run


@pytest.fixture
def terminal():
    return Console(force_terminal=True, width=80, height=24, file=io.StringIO())


def shown_on(console):
    """All lines that were ever on the terminal, in order, the states of the moving line included."""
    lines = re.split(r"\x1b\[2K|[\r\n]", console.file.getvalue())
    plain = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line).rstrip() for line in lines]
    return [line for line in plain if line]


def test_live_line_and_what_scrolls_above_it(run, plan, terminal, train):
    now = [100.0]
    progress: Observer = LiveProgress(terminal, now=lambda: now[0])
    threads = threading.active_count()
    with progress:
        progress.started(run, plan)
        now[0] += 1.0
        progress.idle()
        assert [line.split() for line in shown_on(terminal)[-2:]] == [
            ["epoch", "1/4", "step", "0/12", "─" * 51, "0:01"],
            ["starting"],
        ]
        for event in (train(1), EVAL, WARNING):
            now[0] += 1.0
            progress.event(event)
        progress.output(0, "host1", "hello \x1b[31mred\x1b[0m [bold]")
        now[0] = 100.6
        progress.event(train(6, loss=None))
        now[0] += 1.0
        progress.idle()
        assert threading.active_count() == threads
        progress.event(train(12))
        progress.finished(run)
    lines = shown_on(terminal)
    assert max(map(len, lines)) <= 80
    assert "epoch 1/4  step  3/12  evaluation: accuracy 0.7500  loss 0.5000" in lines
    assert "epoch 2/4  step  4/12  warning: no [loss]" in lines
    assert "[rank 0 on host1] hello red [bold]" in lines
    assert any(line.startswith("epoch 2/4  step  6/12  ━") for line in lines)
    assert "loss –  80.00 samples/s" in lines
    assert "epoch 4/4  step 12/12  loss 0.08333  80.00 samples/s" in lines


def test_the_live_display_shows_where_a_run_ended_early(run, plan, terminal, train):
    progress = LiveProgress(terminal, now=lambda: 100.0)
    progress.started(run, plan)
    progress.event(train(4))
    progress.finished(run)
    assert shown_on(terminal)[-1] == "epoch 2/4  step  4/12  loss 0.2500  80.00 samples/s"
    assert progress.finished_run is run


def test_a_run_that_is_continued_begins_at_the_step_of_its_checkpoint(run, plan, terminal):
    checkpoint = run.layout.checkpoints / "step-00000004-a0"
    checkpoint.mkdir(parents=True)
    (checkpoint / "COMMITTED").touch()
    with LiveProgress(terminal, now=lambda: 100.0) as progress:
        progress.started(run, plan)
    assert any(line.startswith("epoch 2/4  step  4/12  ━") for line in shown_on(terminal))


def test_the_last_training_line_is_not_repeated_below_a_later_evaluation(run, plan, terminal, train):
    with LiveProgress(terminal, now=lambda: 100.0) as progress:
        progress.started(run, plan)
        progress.event(train(2))
        progress.event(EVAL)
        progress.finished(run)
    lines = shown_on(terminal)
    assert any(line.startswith("epoch 1/4  step  3/12  evaluation") for line in lines)
    assert not any("step  2/12  loss" in line for line in lines)


def test_live_fits_a_narrow_terminal(run, plan, train):
    console = Console(force_terminal=True, width=40, file=io.StringIO())
    with LiveProgress(console, now=lambda: 100.0) as progress:
        progress.started(run, plan)
        progress.event(train(4))
        progress.event(train(5))
    assert all(len(line) <= 40 for line in shown_on(console) if "left" in line)


def test_the_display_suits_the_stream(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(make_progress(False, io.StringIO()), PlainProgress)
    assert isinstance(make_progress(True, io.StringIO()), LiveProgress)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(make_progress(True, io.StringIO()), PlainProgress)


def test_logged_values_are_shown_with_the_loss(run, plan, terminal, train):
    event = train(12, d_loss=0.75, g_loss=1.5, rank_step_seconds=[0.1], step_seconds=0.1, data_seconds=0.1)
    out = io.StringIO()
    plain = PlainProgress(out)
    plain.started(run, plan)
    plain.event(event)
    assert out.getvalue().endswith("  loss 0.08333  d_loss 0.7500  g_loss 1.500  80.00 samples/s\n")
    state = RunState(RunLength.of_plan(plan.schedule), 100.0)
    state.add(event)
    terminal.print(render(state, 101.0, 80))
    assert any(line.startswith("loss 0.08333  d_loss 0.7500  g_loss 1.500") for line in shown_on(terminal))


def test_logged_values_are_a_result_of_a_run_without_evaluation(run, writer):
    writer.write("train", step=1, epoch=0, samples=8, loss=0.5, lr=0.1, step_seconds=0.1, d_loss=0.75)
    assert run.metrics == {"d_loss": 0.75, "loss": 0.5}
