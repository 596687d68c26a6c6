"""Batch scripts under a real Slurm, whose nodes are the hosts of a lab."""

import os
import re
import shutil
import sys
import time
from pathlib import Path

import pytest

from distrib.runs.run import Run
from tests.support.lab_runs import NUM_STEPS, Project
from tests.support.processes import Watcher, files_with
from tests.support.recovery_runs import REPOSITORY, assert_each_sample_once_per_epoch
from tests.support.slurm_cluster import SlurmCluster, find_obstacle

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def slurm(labs, tmp_path_factory):
    """Two nodes of two CPUs."""
    if (reason := find_obstacle()) is not None:
        pytest.skip(reason)
    lab = labs.up("q", 2, has_ray=False, names="address")
    cluster = SlurmCluster(lab, tmp_path_factory.mktemp("slurm"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A job of two workers that trains as slowly as it is told to."""
    return Project(None, tmp_path_factory.mktemp("slurm-job") / "project", workers=2)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The weights that two local ranks come to without interruption."""
    here = Project(None, tmp_path_factory.mktemp("slurm-reference") / "project", workers=2)
    launch = here.start()
    assert launch.wait() == 0, launch.output
    return here.layout.weights_file.read_bytes()


def submit(slurm, folder, job, *arguments):
    """The number of the job that `distrib submit --on slurm` hands over on host1."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("DISTRIB_", "RAY_"))}
    environment["PYTHONPATH"] = str(REPOSITORY)
    command = [sys.executable, "-m", "distrib", "submit", job, "--on", "slurm", "--device", "cpu", *map(str, arguments)]
    out = slurm.run(*command, folder=folder, environment=environment)
    return re.search(r"job (\d+) of Slurm", out)[1]


def log_of(runs, run_id, number):
    return (runs / f"{run_id}-slurm-{number}.log").read_text()


def test_digits_trains_to_the_end_and_its_token_is_nowhere(slurm, tmp_path):
    shutil.copytree(REPOSITORY / "jobs", tmp_path / "jobs", ignore=shutil.ignore_patterns("__pycache__"))
    runs = tmp_path / "runs"
    runs.mkdir()
    with Watcher() as watcher:
        number = submit(slurm, tmp_path, "jobs/digits.yaml", "--runs-dir", runs, "--run-id", "d", "--with", "time=10")
        job = slurm.wait_for_job(number, ("COMPLETED", "FAILED", "CANCELLED"), 180)
    log = log_of(runs, "d", number)
    assert job["JobState"] == "COMPLETED", log
    assert job["NumNodes"] == "2"
    run = Run(runs / "d")
    assert run.status == "finished"
    assert run.metrics["accuracy"] > 0.97
    (token,) = watcher.values_of("RAY_AUTH_TOKEN", program=str(runs))
    assert watcher.commands_with(token) == []
    assert files_with(token, tmp_path, slurm.folder) == []


@pytest.mark.long
def test_a_requeued_job_resumes_to_the_same_bits(slurm, project, reference):
    project.pace(0.2)
    number = submit(slurm, project.code, "job.yaml", "--runs-dir", project.runs, "--run-id", "run", "--record-samples")
    wait_for_step(slurm, project, number, 20)
    slurm.run("scontrol", "requeue", number)
    project.pace(0)
    time.sleep(2)
    job = slurm.wait_for_job(number, ("COMPLETED", "FAILED", "CANCELLED"), 200)
    log = log_of(project.runs, "run", number)
    assert (job["JobState"], job["Restarts"]) == ("COMPLETED", "1"), log
    assert re.search(r"from step \d+ of 78", log)
    assert_each_sample_once_per_epoch(project.layout, 2, NUM_STEPS)
    assert project.layout.weights_file.read_bytes() == reference


@pytest.mark.long
def test_ahead_of_the_time_limit_the_job_stops_queues_again_and_resumes_to_the_same_bits(slurm, project, reference):
    shutil.rmtree(project.runs / "run", ignore_errors=True)
    project.pace(1.5)
    number = submit(
        *(slurm, project.code, "job.yaml", "--runs-dir", project.runs, "--run-id", "run", "--record-samples"),
        *("--set", "failures.grace=5", "--with", "time=2"),
    )
    wait_for_step(slurm, project, number, 3)
    job = slurm.wait_for_job(number, ("PENDING",), 180)
    assert job["Restarts"] == "1"
    assert project.run.status == "stopped"
    project.pace(0)
    job = slurm.wait_for_job(number, ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT"), 200)
    log = log_of(project.runs, "run", number)
    assert job["JobState"] == "COMPLETED", log
    assert "queueing again" in log
    assert_each_sample_once_per_epoch(project.layout, 2, NUM_STEPS)
    assert project.layout.weights_file.read_bytes() == reference


def wait_for_step(slurm, project, number, step):
    deadline = time.monotonic() + 150
    while max(project.steps(), default=0) < step:
        log = project.runs / f"run-slurm-{number}.log"
        assert time.monotonic() < deadline, log.read_text() if Path(log).exists() else slurm.job(number)
        time.sleep(0.2)
