"""`train.time_limit`: a run saves a checkpoint and stops, and the same command continues it."""

import time

import pytest

from tests.support.recovery_runs import assert_each_sample_once_per_epoch, job

pytestmark = pytest.mark.timeout(120)


def test_a_run_stops_after_its_time_and_continues(make_place):
    spec = job(
        train={"steps": 100_000, "time_limit": "4 seconds", "log_every": 50},
        checkpoint={"every": "100000 steps", "best": None},
    )
    place = make_place("limited", spec)
    steps = []
    for _ in range(2):
        started = time.monotonic()
        assert place.start().wait(60) == 130
        assert 4 <= time.monotonic() - started < 50
        assert place.run.status == "stopped"
        steps.append(place.committed()[-1])
        assert "train.time_limit is over" in place.warnings()[-1]
    assert 0 < steps[0] < steps[1] < 100_000
    assert place.events("start")[1]["step"] == steps[0]
    assert_each_sample_once_per_epoch(place.layout, 2, steps[1])


def test_a_limit_that_is_not_reached_changes_nothing(make_place):
    place = make_place("quick", job(train={"steps": 10, "time_limit": "1 hour"}))
    place.finish()
    assert place.run.status == "finished"
    assert not any("time_limit" in warning for warning in place.warnings())
