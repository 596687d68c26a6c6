"""What a run says of itself: how far it is, how long it took, what it measured."""

import os
import time

import pytest

from distrib.runs import backwards
from distrib.runs.events import EventWriter
from distrib.runs.run import Run

DEAD = {"host": os.uname().nodename, "pid": 2**22 + 1, "boot_id": "another boot", "pid_namespace": None}


@pytest.fixture
def run(tmp_path):
    run = Run(tmp_path / "one")
    run.create_record(name="digits", request={}, schedule={"total_steps": 100}, provenance={}, started=1000.0)
    return run


def write(run, *events, attempt=0):
    with EventWriter(run.layout.metrics_file, attempt, clock=lambda: 1500.0) as writer:
        for kind, step in events:
            writer.write(kind, step=step, epoch=0, samples=step, loss=1.0)


class TestSteps:
    def test_none_yet(self, run):
        assert run.steps == (0, 100)

    @pytest.mark.parametrize(
        ("events", "step"),
        [
            ([("train", 10)], 10),
            ([("train", 10), ("checkpoint", 17)], 17),
            ([("train", 10), ("train", 20), ("checkpoint", 17)], 20),  # committed late
            ([("train", 10), ("eval", 12), ("checkpoint", 12), ("warning", 15)], 15),
        ],
    )
    def test_of_all_events_not_of_the_last_train_event_alone(self, run, events, step):
        write(run, *events)
        assert run.steps == (step, 100)

    def test_a_restart_loses_what_came_after_the_checkpoint(self, run):
        write(run, ("train", 10), ("checkpoint", 10), ("train", 20))
        write(run, ("restart", 10), attempt=1)
        assert run.steps == (10, 100)
        write(run, ("train", 11), attempt=1)
        assert run.steps == (11, 100)

    def test_once_it_has_ended_they_are_in_the_record(self, run):
        write(run, ("train", 10))
        run.update_record(status="stopped", completed_steps=17)
        assert run.steps == (17, 100)


class TestDuration:
    def test_of_one_launch(self, run):
        assert run.duration_seconds == pytest.approx(time.time() - 1000.0, abs=5)
        run.update_record(status="stopped", ended=1060.0)
        assert run.duration_seconds == 60.0

    def test_of_several_without_the_time_between_them(self, run):
        run.update_record(status="finished", ended=1060.0)
        run.update_record(status="running", ended=None, launched=5000.0, earlier_seconds=run.recorded_seconds)
        run.update_record(status="finished", ended=5030.0)
        assert run.duration_seconds == 90.0

    def test_of_one_whose_launcher_died_until_its_last_event(self, run):
        write(run, ("train", 10), ("checkpoint", 12))
        run.update_record(owner=DEAD)
        assert run.status == "failed"
        assert run.duration_seconds == run.recorded_seconds == 500.0

    def test_of_one_made_before_launches_were_recorded(self, run):
        run.update_record(status="stopped", ended=1060.0, launched=None, earlier_seconds=None)
        assert run.duration_seconds == 60.0


def test_metrics_of_a_long_run_that_has_ended_are_not_searched_for(run, monkeypatch):
    write(run, *[("train", step) for step in range(2000)])
    event = {"event": "train", "step": 2000, "loss": 0.25}
    run.update_record(status="finished", result={"train": event}, completed_steps=2000)
    monkeypatch.setattr(backwards, "lines_backwards", None)
    monkeypatch.setattr("distrib.runs.storage.folder.run.lines_backwards", None)
    assert run.metrics == {"loss": 0.25}
    assert run.steps == (2000, 100)


def test_the_evaluation_of_a_running_run_is_searched_for_in_the_end_of_its_events_only(run, monkeypatch):
    read = []
    blocks = backwards.lines_backwards

    def counted(path):
        for line in blocks(path):
            read.append(line)
            yield line

    monkeypatch.setattr("distrib.runs.storage.folder.run.lines_backwards", counted)
    write(run, ("eval", 1), *[("train", step) for step in range(2, 3 * backwards.MAX_SEARCHED_LINES)])
    assert run.metrics == {"loss": 1.0}
    assert len(read) <= 2 * backwards.MAX_SEARCHED_LINES + 10
