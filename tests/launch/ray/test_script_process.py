"""A script's process beside its Ray worker, and what its end means."""

import os
from types import SimpleNamespace

import pytest

from distrib.launch.local.rank import EXIT_STATUS
from distrib.launch.ray import script as ray_script
from distrib.runs.layout import RunLayout
from distrib.train.context import RankInfo
from distrib.train.failure import Failure

INFO = RankInfo(1, 2, 0, "host2")
OF_BEFORE = Failure.of(RuntimeError("Connection closed by peer"), INFO)
OWN = Failure.of(ValueError("no such label"), INFO)


@pytest.fixture
def end(tmp_path, monkeypatch):
    """`end(status, late=…, own=…)`: the result of a process with this exit status, and failures written meanwhile."""
    layout = RunLayout(tmp_path)
    context = SimpleNamespace(
        rank_info=INFO,
        script_pids=[],
        meet=lambda: ("127.0.0.1", 1, None),
        stop_requested=lambda: False,
        shared_progress=SimpleNamespace(descriptor=-1),
    )

    def end(status, late=None, own=None):
        OF_BEFORE.write(layout.rank_error(1))

        def spawn(*_):
            for failure in (late, own):
                if failure is not None:
                    failure.write(layout.rank_error(1))
            if (pid := os.fork()) == 0:
                os._exit(status)
            return pid

        monkeypatch.setattr(ray_script, "spawn_child", spawn)
        return ray_script.run_in_process(SimpleNamespace(layout=layout), context)

    return end


@pytest.mark.parametrize("late", [None, OF_BEFORE])
@pytest.mark.parametrize("status", ["finished", "stopped"])
def test_what_an_attempt_before_has_reported_late_is_no_failure_of_this_one(end, status, late):
    result = end(EXIT_STATUS[status], late)
    assert (result.status, result.failure) == (status, None)


def test_its_own_failure_is_that_of_the_rank(end):
    result = end(EXIT_STATUS["failed"], own=OWN)
    assert (result.status, result.failure.message) == ("failed", "no such label")


def test_without_a_report_its_exit_status_is_the_failure(end):
    result = end(3)
    assert (result.status, result.failure.host) == ("failed", "host2")
    assert "Connection closed" not in result.failure.message
    assert "Connection closed" not in end(EXIT_STATUS["failed"]).failure.message
