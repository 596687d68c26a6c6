"""What a run is doing, by its events."""

import math

import pytest

from distrib.observe.history import EventReader, RunLength
from distrib.observe.state import RunState
from distrib.observe.terminal.sparkline import Sparkline
from distrib.observe.terminal.view import MIN_BAR_WIDTH, render
from distrib.runs.record import update_record


@pytest.fixture
def state():
    return RunState(RunLength(12, 3), 100.0)


def test_time_left_is_that_of_the_attempt_with_everything_between_its_events(state, train):
    state.add(train(1))
    assert state.seconds_left(100.6) is None
    state.add(train(6))
    assert state.seconds_left(100.6) == pytest.approx(0.6)
    assert state.seconds_left(101.0) == pytest.approx(0.2)
    assert state.seconds_left(106.0) == 0
    state.add(train(3, attempt=1))
    assert state.seconds_left(106.0) is None
    state.add(train(4, time=110.3, attempt=1))  # 10 s for one step: most of it waiting for data or evaluating
    assert state.seconds_left(110.3) == pytest.approx(80)


def test_the_first_speed_is_not_shown_without_the_time_of_its_data(state, train):
    state.add(train(1, data_seconds=0.0))
    assert state.speed is None
    state.add(train(2, data_seconds=0.1, samples_per_second=8.0))
    assert state.speed == 8.0


def test_activities(state, train):
    assert state.activity == "starting"
    state.add({**train(1), "event": "start", "step": 0, "world_size": 2})
    assert state.activity == "first step"
    state.add(train(3))
    assert state.activity == "training"
    state.add(train(2, event="restart", message="rank 1 on a failed"))
    assert (state.activity, state.step) == ("restarting: rank 1 on a failed", 2)
    assert state.set_message(200.0, "waiting for 2 hosts")
    assert not state.set_message(201.0, "waiting for 2 hosts")
    assert state.activity == "waiting for 2 hosts"
    state.add(train(2, event="start", attempt=1))
    assert state.activity == "training from step 2"


def test_a_script_without_a_session_runs_and_has_no_steps(train):
    state = RunState(None, 100.0)
    assert (state.has_steps, state.activity) == (False, "running")
    lines = [line.plain for line in render(state, 122.0, 80).renderables]
    assert lines == ["running  0:22"]
    event = {**train(1), "step": 0}
    state.add({**event, "event": "restart", "message": "rank 1 on a failed"})
    assert state.activity == "running"
    state.add({**event, "event": "start", "world_size": 2})
    assert (state.has_steps, state.activity) == (True, "first step")


def test_a_stall_is_over_with_the_next_event(state, train):
    state.add(train(1))
    state.set_message(200.0, "no step has ended for 75 s: rank 1 has been in data for 75 s; the other waits in reduce")
    assert state.activity.startswith("no step has ended")
    state.add(train(2, time=201.0))
    assert state.activity == "training"


@pytest.mark.parametrize("width", [12, 20, 40, 60, 80, 200])
def test_every_width_has_a_bar_and_is_kept(state, train, width):
    for step in (1, 5):
        state.add(train(step))
    lines = [line.plain for line in render(state, 101.0, width).renderables]
    assert all(len(line) <= width for line in lines)
    assert sum(character in "━╸─" for character in lines[0]) >= min(width, MIN_BAR_WIDTH)


def test_sparklines():
    line = Sparkline()
    assert line.draw(10) == ""
    for value in (3.0, math.nan, 2.0, 1.0):
        line.add(value)
    assert line.draw(10) == "█▅▁"
    for _ in range(100_000):
        line.add(1.0)
    assert line.draw(10) == "█▁▁▁▁▁▁▁▁▁"[:10] or set(line.draw(10)[1:]) == {"▁"}


def test_a_line_that_is_being_written_is_no_damage(run, writer):
    writer.write("train", step=1, epoch=0, samples=8, loss=1.0)
    with run.layout.metrics_file.open("ab") as file:
        file.write(b'{"time": 17')
    reader = EventReader(run)
    assert (len(list(reader)), reader.note) == (1, None)
    update_record(run.folder, status="stopped")
    assert (len(list(reader)), reader.note) == (1, "metrics.jsonl has 1 damaged line, left out here")
