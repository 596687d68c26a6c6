"""On a cluster that lasts, no end of a run leaves an actor, a placement group or a process behind."""

import json
import signal
import subprocess
import sys

import pytest

from distrib.compat.ray import kv
from tests.support.launch_process import Workplace
from tests.support.ray_head import ENVIRONMENT, RayHead

pytestmark = [pytest.mark.ray, pytest.mark.long, pytest.mark.timeout(400)]

SHARED_ACTOR = "_AutoscalingCoordinatorActor"
"""One for the whole cluster, which Ray Train starts for its first run and keeps."""

WHAT_IS_LEFT = """
import json, logging, sys, time
import ray
from ray._private.state import actors

ray.init(address=sys.argv[1], log_to_driver=False, logging_level=logging.ERROR)

def find():
    found = [actor["ActorClassName"] for actor in actors().values() if actor["State"] != "DEAD"]
    return [f"the actor {name}" for name in found if name != sys.argv[2]] + [
        f"the placement group {name}"
        for name, group in ray.util.placement_group_table().items()
        if group["state"] != "REMOVED"
    ]

deadline = time.monotonic() + 60
while (found := find()) and time.monotonic() < deadline:
    time.sleep(0.5)
print(json.dumps([found, ray.available_resources().get("CPU") == ray.cluster_resources()["CPU"]]))
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    made = Workplace(tmp_path_factory.mktemp("workplace"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def head(place):
    with RayHead(place) as made:
        yield made


def finish(launch):
    assert launch.wait(200) == 0, launch.stdout + launch.stderr


def fail(launch):
    assert launch.wait(200) == 1, launch.stdout + launch.stderr


def stop(launch):
    launch.wait_for_step(2, timeout=200)
    launch.send(signal.SIGTERM)
    assert launch.wait(100) == 130, launch.stdout + launch.stderr


def kill(launch):
    launch.wait_for_step(2, timeout=200)
    launch.send(signal.SIGKILL)
    assert launch.wait(40) == -signal.SIGKILL


SLOW = ["model={target: launch_jobs:Slow, args: {seconds: 0.05}}", "train.epochs=null", "train.steps=1000000"]
ENDS = {
    "finished": ([], finish),
    "failed": (["model={target: launch_jobs:Faulty, args: {fault: raise, notes: NOTES, rank: 1, step: 2}}"], fail),
    "stopped": (SLOW, stop),
    "killed": (SLOW, kill),
}


@pytest.mark.parametrize(("sets", "end"), ENDS.values(), ids=ENDS)
def test_nothing_is_left_on_the_cluster(workplace, head, sets, end):
    sets = [text.replace("NOTES", str(workplace.notes)) for text in sets]
    launch = workplace.start("--address", head.address, *(f"--set={text}" for text in sets), env=ENVIRONMENT)
    end(launch)
    launch.wait_until_gone()
    command = [sys.executable, "-c", WHAT_IS_LEFT, head.address, SHARED_ACTOR]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=head.environment)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [[], True]


def test_a_killed_head_ends_the_run_with_the_command_that_resumes_it(workplace):
    with RayHead(workplace) as head:
        model = "{target: launch_jobs:Slow, args: {seconds: 0.05}}"
        sets = [f"model={model}", "train.epochs=null", "train.steps=1000000", "checkpoint.every=2 steps"]
        launch = workplace.start("--address", head.address, *(f"--set={text}" for text in sets), env=ENVIRONMENT)
        launch.wait_for_step(4, timeout=200)
        head.kill_store()
        assert launch.wait(kv.HEAD_SECONDS + 60) == 3, launch.stdout + launch.stderr
        (line,) = (line for line in launch.stderr.splitlines() if "head has not answered" in line)
        assert "continue with: distrib run job.yaml" in line
        assert f"--run-id {launch.run.id}" in line
        assert "Traceback" not in launch.stderr
        assert launch.run.status == "failed"
