"""What every launcher must do; a toy launcher shows that registering one is enough."""

import inspect
import json

import pytest

from distrib.job.plan import make_request
from distrib.job.reader import Job
from distrib.launch.launcher import Launcher
from distrib.launch.registry import LAUNCHERS, default_launcher, make_launcher

pytestmark = pytest.mark.timeout(150)

PROGRAM = """
import json, sys
from distrib import Job, RunOptions, run
from distrib.errors import DistribError
from distrib.launch import registry
from distrib.observe.observer import SilentObserver

def main():
    from tests.support.toy_launcher import ToyLauncher

    registry.LAUNCHERS["toy"] = lambda job, address: ToyLauncher(job)
    said = []

    class Notices(SilentObserver):
        def notice(self, message):
            said.append(message)

    options = RunOptions(launcher={name!r}, run_id="contract")
    try:
        status = run(Job.load("job.yaml", {sets!r}), options, observers=[Notices()]).status
    except DistribError as error:
        status = f"{{type(error).__name__}}: {{error}}"
    print(json.dumps({{"status": status}}))

if __name__ == "__main__":
    main()
"""

LAUNCHER_NAMES = [
    "local",
    "toy",
    pytest.param("ray", marks=[pytest.mark.ray, pytest.mark.long]),
]


@pytest.fixture(params=sorted(LAUNCHERS))
def launcher(request, workplace):
    return make_launcher(Job.load(workplace.job), request.param)


def test_a_launcher_has_the_methods_of_the_protocol(launcher):
    for name, method in inspect.getmembers(Launcher, inspect.isfunction):
        if name.startswith("_") and name not in ("__enter__", "__exit__"):
            continue
        expected, found = inspect.signature(method), inspect.signature(getattr(type(launcher), name))
        assert list(found.parameters) == list(expected.parameters), name


def test_a_description_is_plain_data_and_starts_nothing(launcher, workplace):
    request = make_request(Job.load(workplace.job).spec, "local", "cpu")
    description = launcher.describe(request)
    assert description.worker
    assert json.loads(json.dumps(description.settings)) == description.settings
    workplace.assert_clean()


def test_an_address_means_a_cluster():
    assert default_launcher(None) == "local"
    assert default_launcher("10.0.0.1:6379") != "local"


def launch(workplace, name, *sets):
    program = PROGRAM.format(name=name, sets=[f"storage={workplace.runs}", *sets])
    return workplace.start_python(program, {"RAY_USAGE_STATS_ENABLED": "0"})


@pytest.mark.parametrize("name", LAUNCHER_NAMES)
def test_a_run_finishes_with_every_rank_in_it(workplace, name):
    started = launch(workplace, name, "model.target=launch_jobs:Talkative")
    assert started.wait(120) == 0, started.stderr
    assert started.answer == {"status": "finished"}
    run = started.run
    assert run.record["request"]["launcher"] == name
    assert [event["world_size"] for event in run.events() if event["event"] == "start"] == [2]
    for rank in range(2):
        assert f"print of {rank}" in run.layout.rank_log(rank).read_text()
    started.wait_until_gone()


@pytest.mark.parametrize("name", LAUNCHER_NAMES)
def test_a_lost_rank_leads_to_another_attempt(workplace, name):
    args = f"{{fault: kill, notes: {workplace.notes}, rank: 1, step: 2}}"
    started = launch(workplace, name, f"model={{target: launch_jobs:Faulty, args: {args}}}", "checkpoint.every=1 step")
    assert started.wait(120) == 0, started.stderr
    assert started.answer == {"status": "finished"}
    assert [event["attempt"] for event in started.run.events() if event["event"] == "restart"] == [1]


@pytest.mark.parametrize("name", LAUNCHER_NAMES)
def test_an_error_of_the_user_ends_the_run_and_names_the_rank(workplace, name):
    args = f"{{fault: raise, notes: {workplace.notes}, rank: 1, step: 2}}"
    started = launch(workplace, name, f"model={{target: launch_jobs:Faulty, args: {args}}}")
    assert started.wait(120) == 0, started.stderr
    assert "TrainingFailedError: rank 1 on " in started.answer["status"]
    assert "rank 1 has had enough" in started.answer["status"]
    assert started.run.status == "failed"
