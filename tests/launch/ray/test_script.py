"""A rank of a script on Ray, whose process is replaced by a shell: what it reports for which end."""

import os
import time
from types import SimpleNamespace

import pytest

from distrib.launch.local.progress import SharedProgress
from distrib.launch.ray import script
from distrib.launch.ray.script import ScriptProcessContext, run_in_process
from distrib.launch.watch.failure_cause import error_while_stopping
from distrib.runs.layout import RunLayout
from distrib.train.context import RankInfo
from distrib.train.failure import Failure
from distrib.train.phases import Phase
from distrib.train.worker import RankResult

pytestmark = pytest.mark.timeout(60)


def failure(kind="user", type_="ValueError", message="wrong"):
    return Failure(0, "host", type_, message, None, kind, time.time())


@pytest.fixture
def rank(tmp_path, monkeypatch):
    """Runs a shell command as the script of a rank."""
    layout = RunLayout(tmp_path)
    layout.rank_error(0).parent.mkdir(parents=True)
    shared = SharedProgress.create(1)

    def run(command, *, is_stopping=False):
        monkeypatch.setattr(
            script, "spawn_child", lambda *_: os.posix_spawn("/bin/sh", ["sh", "-c", command], os.environ)
        )
        context = SimpleNamespace(
            rank_info=RankInfo(0, 1, 0, "host", gpu=0),
            shared_progress=shared,
            script_pids=[],
            meet=lambda: ("127.0.0.1", 1, None),
            stop_requested=lambda: is_stopping and layout.rank_error(0).exists(),
        )
        return run_in_process(SimpleNamespace(layout=layout), context)

    yield SimpleNamespace(run=run, error_file=layout.rank_error(0))
    shared.close()


def test_an_error_of_an_earlier_attempt_is_not_this_ones(rank):
    failure().write(rank.error_file)
    assert rank.run("exit 120") == RankResult("finished", None)


def test_an_error_while_stopping_is_not_lost(rank, tmp_path):
    failure().write(tmp_path / "error")
    result = rank.run(f"trap '' TERM; cp {tmp_path}/error {rank.error_file}; exit 1", is_stopping=True)
    assert (result.status, result.failure.type) == ("stopped", "ValueError")
    assert (
        error_while_stopping({0: result.failure}) == "an error while stopping: rank 0 on host failed: ValueError: wrong"
    )


@pytest.mark.parametrize(
    "end", [failure("infrastructure"), failure(type_="ScriptExitError"), failure(type_="KeyboardInterrupt")]
)
def test_the_usual_ends_of_a_script_that_stops_are_no_errors(end):
    assert error_while_stopping({0: end}) is None
    assert error_while_stopping({}) is None


def test_the_position_of_a_script_is_seen_by_its_worker():
    shared = SharedProgress.create(1)
    seen = shared.of_rank(0)
    context = ScriptProcessContext(RankInfo(0, 1, 0, "host", gpu=0), "127.0.0.1", 1, None, shared)
    context.progress.complete_step(7)
    context.progress.enter(Phase.DATA)
    assert (seen.position.completed_steps, seen.position.phase) == (7, Phase.DATA)
    shared.close()
