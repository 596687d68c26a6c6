"""A rank that fails ends the run: at once, without another attempt, and the right one is named."""

import socket

import pytest

from distrib.launch.watch.failure_cause import with_early_ends
from distrib.train.failure import Failure

pytestmark = pytest.mark.timeout(150)

LAUNCHERS = [
    pytest.param("local", id="local"),
    pytest.param("ray", id="ray", marks=[pytest.mark.ray, pytest.mark.long]),
]

NO_RESTART = "failures.max_restarts=0"

SOON = 20
"""Seconds: far less than ranks wait for another one (300), or sleep (60)."""


@pytest.fixture
def workplace(quick_workplace):
    """Launches are forks."""
    return quick_workplace


def fail(workplace, fault, *, on="local", rank=1, step=2, sets=(), timeout=60):
    """Runs a job with a fault; returns the launch and the seconds from the fault to its end."""
    args = f"{{fault: {fault}, notes: {workplace.notes}, rank: {rank}, step: {step}}}"
    model = f"{{target: launch_jobs:Faulty, args: {args}}}"
    arguments = [part for text in [f"model={model}", *sets] for part in ("--set", text)]
    launch = workplace.start("--on", on, *arguments)
    assert launch.wait(timeout) == 1, launch.stdout + launch.stderr
    ((_, struck),) = workplace.noted(fault)
    return launch, launch.ended - struck


def assert_one_attempt(workplace, launch, world_size=2):
    assert sorted(rank for rank, _ in workplace.noted("built")) == list(range(world_size))
    assert launch.run.status == "failed"
    assert not launch.run.weights.exists()
    assert {event["attempt"] for event in launch.run.events()} <= {0}
    launch.wait_until_gone()


@pytest.mark.parametrize("on", LAUNCHERS)
def test_an_exception_while_others_wait_for_the_rank(workplace, on):
    launch, seconds = fail(workplace, "raise late", on=on)
    assert seconds < SOON
    assert "Traceback (most recent call last)" in launch.stdout
    assert 'launch_jobs.py", line ' in launch.stdout
    assert launch.stdout.count("ValueError: rank 1 has had enough") == 2  # in the headline and at the traceback's end
    assert "on_rank" not in launch.stdout
    assert "gloo" not in launch.stdout + launch.stderr
    assert "Connection" not in launch.stdout + launch.stderr
    assert launch.stderr == ""
    error = launch.run.error
    assert (error["rank"], error["type"], error["kind"]) == (1, "ValueError", "user")
    assert error["message"] == "rank 1 has had enough"
    assert error["host"] == socket.gethostname()
    assert (error["completed_steps"], error["phase"]) == (2, "forward")
    assert "  last steps  2 completed, failed in forward" in launch.stdout
    assert error["traceback"].splitlines()[-1] == "ValueError: rank 1 has had enough"
    assert "logs/rank-1.log" in launch.stdout
    assert "ValueError: rank 1 has had enough" in launch.run.layout.rank_log(1).read_text()
    assert_one_attempt(workplace, launch)
    workplace.assert_clean()


def test_an_exception_of_rank_0(workplace):
    launch, seconds = fail(workplace, "raise", rank=0, step=1)
    assert seconds < SOON
    assert (launch.run.error["rank"], launch.run.error["type"]) == (0, "ValueError")
    assert_one_attempt(workplace, launch)


def test_a_killed_rank(workplace):
    launch, seconds = fail(workplace, "kill", sets=[NO_RESTART])
    assert seconds < SOON
    error = launch.run.error
    assert (error["rank"], error["type"], error["kind"]) == (1, "SIGKILL", "infrastructure")
    assert (error["completed_steps"], error["phase"]) == (2, "forward")
    assert f"rank 1 on {socket.gethostname()}: SIGKILL: the rank's process was " in launch.stdout
    assert_one_attempt(workplace, launch)


@pytest.mark.parametrize(
    ("fault", "type_", "world_size"),
    [("sys.exit", "SystemExit", 2), ("os._exit", "RankExited", 1), ("os._exit", "RankExited", 2)],
)
def test_a_rank_that_leaves_with_status_0_has_not_finished(workplace, fault, type_, world_size):
    launch, seconds = fail(
        workplace,
        fault,
        rank=world_size - 1,
        sets=[f"resources.workers={world_size}", f"failures.hang_timeout={2 * SOON}"],
    )
    assert seconds < SOON
    error = launch.run.error
    assert (error["rank"], error["type"], error["kind"]) == (world_size - 1, type_, "user")
    assert_one_attempt(workplace, launch, world_size)


def test_a_killed_loader_worker_is_nobodys_fault(workplace):
    data = f"{{target: launch_jobs:LoadedSamples, args: {{count: 22, notes: {workplace.notes}, fatal: 13}}}}"
    sets = [f"data.train={data}", "data.loader_workers=1", NO_RESTART]
    launch = workplace.start(*(part for text in sets for part in ("--set", text)))
    assert launch.wait(60) == 1
    assert (launch.run.error["type"], launch.run.error["kind"]) == ("RuntimeError", "infrastructure")
    assert "DataLoader worker" in launch.run.error["message"]
    assert launch.run.status == "failed"
    assert len({pid for pid, _ in workplace.noted("loader")}) == 2
    launch.wait_until_gone()


def test_a_rank_that_hangs(workplace):
    """It is the one that is named, not those that waited for it; and its log tells where it stood."""
    sets = ["failures.hang_timeout=3", NO_RESTART, "resources.workers=3"]
    launch, seconds = fail(workplace, "sleep", sets=sets)
    assert 3 <= seconds < 2 * SOON
    error = launch.run.error
    assert (error["rank"], error["type"], error["kind"]) == (1, "RankHangs", "hang")
    log = launch.run.layout.rank_log(1).read_text()
    assert "launch_jobs.py" in log
    assert "in forward" in log
    assert_one_attempt(workplace, launch, 3)


def test_a_connection_lost_to_a_script_that_has_ended_says_so():
    lost = Failure(0, "one", "RuntimeError", "Connection closed by peer [::1]:4", None, "infrastructure", 1.0)
    explained = with_early_ends(lost, [1, 2])
    assert explained.advice.startswith(
        "the script had already ended without an error on ranks 1, 2, while rank 0 still"
    )
    assert with_early_ends(lost, []) == lost
    own = Failure(0, "one", "ValueError", "no such label", None, "user", 1.0)
    assert with_early_ends(own, [1]) == own
