"""Real Ray workers that cannot start, or cannot be told to end: the run does not wait for them without end."""

import pytest

from tests.support.launch_process import REPOSITORY

pytestmark = [pytest.mark.ray, pytest.mark.long, pytest.mark.timeout(400)]

BROKEN = """
import os, sys

if any(argument.endswith("default_worker.py") for argument in sys.orig_argv):
    print("ModuleNotFoundError: No module named 'not_there'", file=sys.stderr, flush=True)
    os._exit(1)
"""


def test_workers_whose_interpreter_ends_at_once(workplace):
    workplace.write("sitecustomize.py", BROKEN)
    launch = workplace.start("--on", "ray", env={"PYTHONPATH": f"{workplace.folder}:{REPOSITORY}"})
    assert launch.wait(300) == 3, launch.stdout + launch.stderr
    assert "Ray cannot start workers on" in launch.stderr
    assert "No module named 'not_there'" in launch.stderr
    assert "Traceback" not in launch.stderr
    assert launch.run.status == "failed"
    launch.wait_until_gone()
    workplace.assert_clean()


def test_a_lone_rank_in_native_code_that_holds_pythons_lock(workplace):
    """None of its threads can publish that it is idle, or end it."""
    args = f"{{fault: hold the lock, notes: {workplace.notes}, rank: 0}}"
    sets = [f"model={{target: launch_jobs:Faulty, args: {args}}}", "resources.workers=1", "failures.hang_timeout=4"]
    launch = workplace.start("--on", "ray", *(f"--set={text}" for text in sets))
    assert launch.wait(200) == 0, launch.stdout + launch.stderr
    (restart,) = (event for event in launch.run.events() if event["event"] == "restart")
    assert "RankHangs" in restart["message"]
    launch.wait_until_gone()
