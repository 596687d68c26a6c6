"""What `submit --render` writes for KubeRay and Compose, executed as it stands on the hosts of a lab."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from ray.job_submission import JobSubmissionClient

from distrib.runs.run import Run
from tests.support.processes import Watcher, files_with
from tests.support.recovery_runs import REPOSITORY

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]


@pytest.fixture
def project(tmp_path):
    """A working directory with the digits job, and beside it the folder of runs."""
    code, runs = tmp_path / "code", tmp_path / "runs"
    shutil.copytree(REPOSITORY / "jobs", code / "jobs", ignore=shutil.ignore_patterns("__pycache__"))
    runs.mkdir()
    return code


def clean_environment():
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("DISTRIB_", "RAY_"))}
    return environment | {"PYTHONPATH": str(REPOSITORY)}


def render(project, target, *arguments):
    """The rendered digits job with one worker on each of two hosts."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "distrib", "submit", "jobs/digits.yaml", "--render", target, "--device", "cpu"),
            *("--workers", "2", "--run-id", "d", "--runs-dir", project.parent / "runs", *arguments),
        ],
        cwd=project,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return yaml.safe_load(done.stdout)


def assert_trained(project):
    run = Run(project.parent / "runs" / "d")
    assert run.status == "finished"
    assert run.metrics["accuracy"] > 0.97
    return run


@pytest.mark.long
def test_a_ray_job_trains_as_kuberay_sends_it(labs, project):
    lab = labs.up("k", 3, cpus=1, has_bare_head=True)
    token = Path(lab.token_file).read_text()
    job = render(project, "kuberay", "--with", f"workdir={project}", "--with", "volume_claim=runs")
    spec = job["spec"]
    assert spec["submissionMode"] == "HTTPMode"
    client = JobSubmissionClient(lab.address, headers={"Authorization": f"Bearer {token}"})
    with Watcher() as watcher:
        number = client.submit_job(
            entrypoint=spec["entrypoint"], runtime_env=yaml.safe_load(spec["runtimeEnvYAML"]), submission_id="kuberay"
        )
        deadline = time.monotonic() + 150
        while not (status := client.get_job_status(number)).is_terminal():
            assert time.monotonic() < deadline, client.get_job_logs(number)
            time.sleep(0.5)
    assert status == "SUCCEEDED", client.get_job_logs(number)
    run = assert_trained(project)
    assert run.record["schedule"]["world_size"] == 2
    assert watcher.commands_with(token) == []
    others = [path for path in files_with(token, project.parent, lab.folder) if path != lab.token_file]
    assert others == []


@pytest.mark.long
def test_compose_services_train_together(labs, project, tmp_path):
    lab = labs.up("c", 2, has_ray=False, names="address")
    Path("/tmp/ray").mkdir(exist_ok=True)
    token = tmp_path / "token"
    token.touch(0o600)
    token.write_text("0123456789abcdef" * 4)
    compose = render(project, "compose", "--with", f"workdir={project}", "--with", f"token_file={token}")
    assert list(compose["services"]) == lab.hosts
    (secret,) = compose["secrets"]
    running = {}
    with Watcher() as watcher:
        for host, service in compose["services"].items():
            lab.hide(host, "/tmp/ray")
            lab.hide(host, "/run")
            place = f"/run/secrets/{secret}"
            shown = lab.exec(host, ["install", "-D", "--mode=0400", compose["secrets"][secret]["file"], place])
            assert shown.returncode == 0, shown.stderr
            environment = clean_environment() | service["environment"]
            environment["PATH"] = os.path.dirname(sys.executable) + os.pathsep + environment["PATH"]
            running[host] = lab.popen(
                host,
                service["command"],
                folder=service["working_dir"],
                environment=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        out, _ = running["host1"].communicate(timeout=150)
        assert running["host1"].returncode == 0, out
    assert_trained(project)
    assert watcher.commands_with(token.read_text()) == []
    assert files_with(token.read_text(), project.parent / "runs", project) == []
    running["host2"].kill()
