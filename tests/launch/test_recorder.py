"""What run.json holds after a run was launched again."""

import sys
from pathlib import Path

import pytest

from distrib.job.plan import Plan, make_request
from distrib.job.reader import Job
from distrib.job.step_plan import Facts, make_step_plan
from distrib.launch.acquire import RunRequest, acquire_run
from distrib.launch.recorder import RunRecorder
from distrib.observe.resume_command import resume_command
from distrib.train.context import AttemptConfig

SPEC = """\
name: digits
model: jobs.digits:Mlp
data: {train: jobs.digits:Digits, batch_size: 8}
loss: torch.nn:CrossEntropyLoss
optimizer: torch.optim:AdamW
train: {steps: 9}
"""


@pytest.fixture
def launch(tmp_path, monkeypatch):
    """`launch(WORKERS)`: what a launch with this many workers records before its ranks start; returns the run."""
    (tmp_path / "job.yaml").write_text(SPEC)

    def launch(workers):
        monkeypatch.setattr(sys, "argv", ["distrib", "run", "job.yaml", "--workers", workers, "--run-id", "one"])
        job = Job.load(tmp_path / "job.yaml", [f"storage={tmp_path / 'runs'}", f"resources.workers={workers}"])
        request = make_request(job.spec, "local", "cpu")
        acquired = acquire_run(RunRequest(job, "one", 9))
        config = AttemptConfig(
            job=job, request=request, run_location=str(acquired.run.location), working_directory=Path.cwd()
        )
        plan = Plan(request, make_step_plan(job.spec, Facts(64, None), int(workers)))
        RunRecorder(acquired, config).start(plan, started=1.0)
        acquired.lease.release()
        return acquired.run

    return launch


def test_the_command_that_continues_a_run_is_that_of_its_newest_launch(launch):
    assert resume_command(launch("2")) == "distrib run job.yaml --workers 2 --run-id one"
    assert resume_command(launch("1")) == "distrib run job.yaml --workers 1 --run-id one"
