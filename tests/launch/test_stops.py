"""Signals end a run: in good order, at once, or by leaving nobody behind."""

import json
import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.timeout(90)

STEPS = 1_000_000


WITHIN_GRACE = 25
"""Seconds; after the grace of 30 s ranks that do not stop would be killed."""


def start(workplace, *sets, on="local"):
    """Starts a run that would take hours, and waits until it trains."""
    model = "{target: launch_jobs:Slow, args: {seconds: 0.01}}"
    sets = [f"model={model}", "train.epochs=null", f"train.steps={STEPS}", *sets]
    launch = workplace.start("--on", on, *(part for text in sets for part in ("--set", text)))
    launch.wait_for_step(2)
    return launch


def assert_stopped(launch):
    run = launch.run
    assert run.status == "stopped"
    assert run.error is None
    assert not run.weights.exists()
    assert {event["attempt"] for event in run.events()} == {0}
    assert launch.stderr == ""
    assert "stopped" in launch.stdout
    assert "Traceback" not in launch.stdout


SIGNALS = {
    "Ctrl-C": (signal.SIGINT, True),
    "kill": (signal.SIGTERM, False),
    "scheduler": (signal.SIGTERM, True),
    "terminal closed": (signal.SIGHUP, True),
}


@pytest.mark.parametrize(("number", "to_group"), SIGNALS.values(), ids=SIGNALS)
def test_one_signal_stops_in_good_order(workplace, number, to_group):
    launch = start(workplace, "data.loader_workers=1")
    assert len(launch.processes()) >= 5
    launch.send(number, to_group=to_group)
    assert launch.wait(WITHIN_GRACE) == 130
    launch.wait_until_gone()
    assert_stopped(launch)
    events = launch.run.events()
    (stop,) = [event for event in events if event["event"] == "stop"]
    assert 0 < stop["step"] < STEPS
    workplace.assert_clean()


def test_a_second_signal_ends_at_once(quick_workplace):
    block = f"{{target: launch_jobs:Faulty, args: {{fault: sleep, notes: {quick_workplace.notes}}}}}"
    launch = quick_workplace.start("--set", f"model={block}")
    launch.wait_until(lambda: quick_workplace.noted("sleep"))
    launch.send(signal.SIGINT, to_group=True)
    launch.wait_until(lambda: "press Ctrl-C again" in launch.stdout)
    assert len(launch.processes()) == 3
    launch.send(signal.SIGINT, to_group=True)
    assert launch.wait(WITHIN_GRACE) == 130
    launch.wait_until_gone()
    assert_stopped(launch)


def test_ranks_that_do_not_stop_are_ended_after_the_grace(quick_workplace):
    block = f"{{target: launch_jobs:Faulty, args: {{fault: sleep, notes: {quick_workplace.notes}}}}}"
    launch = quick_workplace.start("--set", f"model={block}", "--set", "failures.grace=2")
    launch.wait_until(lambda: quick_workplace.noted("sleep"))
    launch.send(signal.SIGINT)
    sent = time.monotonic()
    assert launch.wait(40) == 130  # the ranks would sleep for 60 s
    assert time.monotonic() - sent >= 2
    launch.wait_until_gone()
    assert_stopped(launch)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_anything_has_started(workplace, number):
    """While the job's module is still imported: no run, no trace."""
    workplace.write("slow.py", "import pathlib, time; pathlib.Path('begun').touch(); time.sleep(60)")
    launch = workplace.start("--set", "model=slow:Model")
    launch.wait_until((workplace.folder / "begun").exists)
    launch.send(number, to_group=True)
    assert launch.wait(40) == 130
    assert launch.stderr == "distrib: interrupted\n"
    launch.wait_until_gone()
    assert not workplace.runs.exists()


def test_a_signal_that_an_import_swallows(workplace):
    module = """
import pathlib, time
from launch_jobs import Mlp
try:
    pathlib.Path("begun").touch()
    time.sleep(60)
except BaseException:
    pass
"""
    workplace.write("slow.py", module)
    launch = workplace.start("--set", "model=slow:Mlp")
    launch.wait_until((workplace.folder / "begun").exists)
    launch.send(signal.SIGINT, to_group=True)
    assert launch.wait(40) == 130
    assert launch.stderr == "distrib: interrupted\n"
    assert not workplace.runs.exists()


STOPPED_AT_ONCE = """
import os, signal
from distrib import Job, run
from distrib.errors import StoppedError
from distrib.observe.observer import SilentObserver

class Impatient(SilentObserver):
    def started(self, run, plan):
        os.kill(os.getpid(), signal.SIGTERM)

try:
    run(Job.load("job.yaml", ["storage=runs"]), observers=[Impatient()])
except StoppedError as error:
    print(error)
"""


def test_a_signal_after_the_run_has_begun_and_before_its_ranks(workplace):
    launch = workplace.start_python(STOPPED_AT_ONCE)
    assert launch.wait(30) == 0, launch.stderr
    assert launch.stdout == f"run {launch.run.id} was stopped\n"
    assert (launch.run.status, launch.run.error, launch.run.events()) == ("stopped", None, [])


def test_a_killed_launcher_leaves_nobody_behind(quick_workplace):
    """Not even a rank that is stuck in its step, nor the loader workers."""
    block = f"{{target: launch_jobs:Faulty, args: {{fault: sleep, notes: {quick_workplace.notes}}}}}"
    launch = quick_workplace.start("--set", f"model={block}", "--set", "data.loader_workers=1")
    launch.wait_until(lambda: quick_workplace.noted("sleep"))
    assert len(launch.processes()) >= 5
    launch.send(signal.SIGKILL)
    assert launch.wait(40) == -signal.SIGKILL
    launch.wait_until_gone()
    assert_abandoned(quick_workplace, launch)


def assert_abandoned(workplace, launch):
    """The run is told failed by all who look."""
    assert launch.run.status == "failed"
    assert (launch.run.error["type"], launch.run.error["kind"]) == ("LauncherDied", "infrastructure")
    command = [sys.executable, "-m", "distrib", "list", "--json", "--runs-dir", workplace.runs]
    listed = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=30).stdout)
    assert [run["status"] for run in listed["runs"]] == ["failed"]


@pytest.mark.ray
@pytest.mark.long
def test_a_signal_stops_a_run_on_ray(workplace):
    launch = start(workplace, on="ray")
    assert len(launch.processes()) > 6
    launch.send(signal.SIGINT, to_group=True)
    assert launch.wait(WITHIN_GRACE) == 130
    launch.wait_until_gone()
    assert_stopped(launch)
    workplace.assert_clean()


@pytest.mark.ray
def test_a_killed_launcher_takes_its_ray_along(workplace):
    launch = start(workplace, on="ray")
    launch.send(signal.SIGKILL)
    assert launch.wait(40) == -signal.SIGKILL
    launch.wait_until_gone(40)
    assert_abandoned(workplace, launch)
    workplace.assert_clean()
