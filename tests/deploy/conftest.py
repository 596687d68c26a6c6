"""Jobs to render, in a folder of their own that is the working directory."""

import shutil
from pathlib import Path

import pytest

from distrib.deploy.deployment import make_deployment
from distrib.deploy.registry import find_renderer
from distrib.job.reader import Job

DIGITS = Path(__file__).parents[2] / "jobs" / "digits.yaml"
STORE = "storage=s3://bucket/runs"
FOLDER = "storage=/shared/runs"
ELASTIC = ("resources.workers={min: 2, max: 6}", "resources.device=cpu", "resources.memory_per_worker=3GiB")
GPU = (
    *("resources.workers=8", "resources.device=cuda", "resources.cpus_per_worker=6", "resources.accelerator=H100"),
    *("resources.memory_per_worker=24GiB", "resources.placement=spread", "failures.grace=45"),
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory, with the job's file in it."""
    (tmp_path / "jobs").mkdir()
    shutil.copy(DIGITS, tmp_path / "jobs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def deploy(folder):
    """Makes a deployment of the digits job with overrides."""

    def make(*overrides, run_id="digits-1", variables=None, packages=()):
        job = Job.load("jobs/digits.yaml", overrides)
        arguments = [f"--set={text}" for text in overrides]
        return make_deployment(job, run_id, arguments, variables=variables or {}, packages=packages)

    return make


@pytest.fixture
def render(deploy):
    """Renders the digits job with overrides for a target; gives the deployment and the text."""

    def make(target, *overrides, settings=(), **options):
        deployment = deploy(*overrides, **options)
        return deployment, find_renderer(target).render(deployment, list(settings))

    return make
