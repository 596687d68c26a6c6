"""Scripts on three hosts: those of torchrun unchanged, and one with a session whose number of workers changes."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from distrib.runs.events import read_events
from distrib.runs.run import Run
from tests.lab.test_submit import Command, nothing_left
from tests.launch.test_scripts import SCRIPT
from tests.support.lab_runs import Launch, Project
from tests.support.recovery_runs import SUPPORT

if str(SUPPORT) not in sys.path:
    sys.path.append(str(SUPPORT))

from exact_reference import flat

from tests.train.script.test_exact import MODULES, TOLERANCE, plain_scheduled

__all__ = ["nothing_left"]
pytestmark = [pytest.mark.ray, pytest.mark.long, pytest.mark.timeout(400)]

STEPS = 9


@pytest.fixture(scope="module")
def lab(labs):
    """A head that trains nothing, and three hosts with a CPU each."""
    made = labs.up("x", 4, cpus=1, has_bare_head=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_TOKEN_PATH", made.token_file)
        yield made


class Scripts(Project):
    """A folder of scripts instead of a job."""

    def __init__(self, lab, folder):
        super().__init__(lab, folder)
        (self.code / "job.yaml").unlink()
        (self.code / "train.py").write_text(SCRIPT.replace('Path(f"seen', 'Path(f"{sys.argv[2]}/seen'))
        for file in [*(SUPPORT / "peers").glob("*.py"), *(SUPPORT / module for module in MODULES)]:
            shutil.copy(file, self.code)

    def submit(self, script, run_id, *arguments, options=()):
        """Runs a script by `submit`, from outside of the cluster; its exit code, its output and its run."""
        command = Command(
            *(self, "submit", script, "--address", self._lab.address, "--run-id", run_id, "--runs-dir", self.runs),
            *("--workers", 3, "--device", "cpu", *options, "--", *arguments),
        )
        code, out, err = command.result()
        return code, out + err, Run(self.runs / run_id)


@pytest.fixture(scope="module")
def project(lab, tmp_path_factory):
    made = Scripts(lab, tmp_path_factory.mktemp("scripts") / "project")
    yield made
    made.close()


def seen(project, rank, attempt=0):
    return json.loads((project.runs / f"seen-{rank}-{attempt}.json").read_text())


@pytest.mark.parametrize("script", ["plain_ddp.py", "accelerate_ddp.py"])
def test_a_script_of_torchrun_runs_unchanged(project, script):
    code, output, run = project.submit(script, Path(script).stem.replace("_", "-"), options=["--env", "EPOCHS=2"])
    assert code == 0, output
    assert run.status == "finished"
    assert "RESULT first_step_s=" in output
    assert "steps=38 " in output  # 599 samples a rank, 32 at a time, twice


def test_a_killed_rank_is_restarted(project):
    code, output, run = project.submit("train.py", "killed", "kill", project.runs, options=["--max-restarts", 1])
    assert code == 0, output
    assert {seen(project, rank, attempt)["sum"] for rank in range(3) for attempt in range(2)} == {3.0}
    assert {seen(project, rank)["LOCAL_WORLD_SIZE"] for rank in range(3)} == {"1"}
    assert sorted(seen(project, rank)["GROUP_RANK"] for rank in range(3)) == ["0", "1", "2"]
    assert [event["attempt"] for event in read_events(run.layout.metrics_file) if event["event"] == "restart"] == [1]


def test_an_error_of_the_user_is_that_ranks_traceback(project):
    code, output, run = project.submit("train.py", "raised", "raise", project.runs)
    assert code == 1, output
    assert (run.error["rank"], run.error["type"], run.error["kind"]) == (1, "ValueError", "user")
    assert 'train.py", line' in run.error["traceback"].splitlines()[1]
    assert 'raise ValueError("no such label")' in output


def test_a_session_continues_with_fewer_workers_when_a_host_is_lost(lab, project):
    """Steps of 9 samples, on 3 ranks and then on 2; the last rank waits in step 7 for its end."""
    command = [sys.executable, "-m", "distrib", "run", "script_cases.py", "--run-id", "run", "--runs-dir", project.runs]
    command += ["--workers", "2..3", "--device", "cpu", "--", "scheduled", f"steps={STEPS}", "checkpoint=2 steps"]
    launch = Launch(lab, list(map(str, [*command, "wait=2@7", f"shared={project.runs}"])), project.code, 9)
    project._launches.append(launch)
    launch.wait_until(lambda: (project.runs / "waiting").exists() and project.events("checkpoint"))
    host, _ = project.place_of(2)
    lab.kill(host)
    assert launch.wait(200) == 0, launch.output
    starts = project.events("start")
    assert [event["world_size"] for event in starts] == [3, 2]
    assert 2 <= starts[1]["step"] <= 6
    assert [event["attempt"] for event in project.events("restart")] == [1]
    *_, model = plain_scheduled()
    found, expected = flat(load_file(project.layout.weights_file)), flat(model.state_dict())
    assert float((found - expected).norm() / expected.norm()) < TOLERANCE * STEPS
    assert sorted(set(project.steps())) == list(range(1, STEPS + 1))
