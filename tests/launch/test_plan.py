"""`distrib plan`: the numbers of a real job, with nothing started or written."""

import json
import re
import sys

import pytest

from tests.support.launch_process import REPOSITORY

pytestmark = pytest.mark.timeout(60)

NUM_PARAMETERS = (64 + 1) * 256 + (256 + 1) * 256 + (256 + 1) * 10


@pytest.fixture
def plan(workplace):
    """Plans the digits; gives what was printed."""

    def call(*arguments):
        command = [sys.executable, "-m", "distrib", "plan", str(REPOSITORY / "jobs" / "digits.yaml"), *arguments]
        launch = workplace.start_command([*command, "--device", "cpu"], {"PYTHONPATH": str(REPOSITORY)})
        assert launch.wait(30) == 0, launch.stderr
        assert launch.stderr == ""
        launch.wait_until_gone()
        assert sorted(path.name for path in workplace.folder.iterdir() if not path.name.startswith("std")) == [
            "home", "job.yaml", "launch_jobs.py",
        ]  # fmt: skip
        workplace.assert_clean()
        return launch.stdout

    return call


def test_the_numbers_of_the_digits(plan):
    made = json.loads(plan("--json", "--workers", "3"))
    request, schedule, memory = made["request"], made["schedule"], made["memory"]
    assert (request["launcher"], request["min_workers"], request["device"], request["backend"]) == (
        "local", 3, "cpu", "gloo",
    )  # fmt: skip
    assert (schedule["train_samples"], schedule["eval_samples"]) == (1437, 360)
    assert (schedule["steps_per_epoch"], schedule["total_steps"]) == (23, 460)
    assert (schedule["global_batch_size"], schedule["last_batch_size"]) == (64, 1437 - 22 * 64)
    assert (schedule["rank_batches"], schedule["last_rank_batches"]) == ([21, 21, 22], [9, 10, 10])
    assert (schedule["eval_batch_size"], schedule["eval_interval_steps"]) == (22, 23)
    assert (memory["num_parameters"], memory["weights_bytes"]) == (NUM_PARAMETERS, 4 * NUM_PARAMETERS)


def test_the_listing_of_the_digits(plan):
    listing = plan()
    for fact in ("2 local processes", "1,437 samples", "460 = 20 epochs of 23", "64 samples, 32 per rank", "85 k"):
        assert fact in listing
    assert re.search(r"last of an epoch +29 samples, 14 to 15 per rank", listing)


def test_what_is_planned_is_what_runs(workplace):
    launch = workplace.start("--workers", "2", "--json")
    assert launch.wait(60) == 0
    command = [sys.executable, "-m", "distrib", "plan", "job.yaml", "--workers", "2", "--json"]
    planned = workplace.start_command(command)
    assert planned.wait(30) == 0
    record = launch.run.record
    assert {"request": record["request"], "schedule": record["schedule"]} == {
        name: planned.answer[name] for name in ("request", "schedule")
    }
    assert launch.answer["folder"] == str(launch.run.folder)
    assert (launch.answer["status"], launch.answer["exit_code"], launch.answer["error"]) == ("finished", 0, None)
