"""A made-up run of 4 epochs of 3 steps, and its plan."""

import pytest

from distrib.job.plan import LaunchDescription, Memory, Plan, make_request
from distrib.job.spec.job import JobSpec
from distrib.job.step_plan import Facts, make_step_plan
from distrib.runs.events import EventWriter
from distrib.runs.record import create_record
from distrib.runs.run import Run


@pytest.fixture
def spec():
    return JobSpec.model_validate(
        {
            "name": "digits",
            "model": "a:B",
            "data": {"train": "a:C", "eval": "a:D", "batch_size": 8},
            "loss": "a:E",
            "optimizer": "a:F",
            "train": {"epochs": 4},
            "resources": {"workers": 2},
        }
    )


@pytest.fixture
def plan(spec):
    schedule = make_step_plan(spec, Facts(train_samples=21, eval_samples=10), 2)
    launch = LaunchDescription("local process")
    return Plan(make_request(spec, "local", "cpu"), schedule, Memory(1000, 4000, 4000, 8000), launch)


@pytest.fixture
def run(tmp_path, plan):
    parts = plan.as_dict()
    folder = tmp_path / "runs" / "digits-1"
    create_record(folder, name="digits", request=parts["request"], schedule=parts["schedule"], provenance={})
    return Run(folder)


@pytest.fixture
def writer(run):
    with EventWriter(run.layout.metrics_file, 0, clock=lambda: 100.0) as writer:
        yield writer


@pytest.fixture
def train():
    """Makes train events of a run that does 10 steps a second."""

    def make(step, time=None, **fields):
        known = {"time": 100 + step / 10 if time is None else time, "attempt": 0, "event": "train", "step": step}
        known |= {"epoch": 0, "samples": step * 8, "loss": 1 / step, "lr": 0.1, "samples_per_second": 80.0}
        return {**known, **fields}

    return make
