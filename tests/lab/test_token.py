"""Who may use a cluster: clients with its token; the token and other secrets show up nowhere."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.lab_runs import Project
from tests.support.processes import Watcher, files_with
from tests.support.recovery_runs import REPOSITORY

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

SECRET = "hunter22-should-be-seen-by-nobody"


@pytest.fixture(scope="module")
def lab(two_hosts):
    return two_hosts


@pytest.fixture(scope="module")
def token(lab):
    return Path(lab.token_file).read_text()


@pytest.fixture(scope="module")
def project(lab, tmp_path_factory):
    return Project(lab, tmp_path_factory.mktemp("token") / "project", workers=2)


@pytest.fixture(scope="module")
def stranger(labs):
    """A host of another lab, which is no member of the cluster but can reach it through the machine."""
    return labs.up("x", 1, has_ray=False)


def submit(project, lab, *arguments, command=(), **variables):
    """Runs `distrib submit` on the machine, or by `command` elsewhere, with these variables."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("DISTRIB_", "RAY_"))}
    environment |= {"PYTHONPATH": str(REPOSITORY), "HOME": str(project.code.parent), **variables}
    return subprocess.run(
        [
            *(*command, sys.executable, "-m", "distrib", "submit", "job.yaml", "--address", lab.address),
            *("--runs-dir", project.runs, *arguments),
        ],
        cwd=project.code,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def assert_refused(done, message):
    assert done.returncode == 3, done.stdout + done.stderr
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_without_a_token_or_with_a_wrong_one_nothing_runs(lab, project, stranger, tmp_path):
    asks = f"the cluster at {lab.address} admits only clients with its token; set RAY_AUTH_TOKEN, or"
    assert_refused(submit(project, lab), asks)
    assert_refused(submit(project, lab, RAY_AUTH_MODE="token"), asks)
    wrong = f"the cluster at {lab.address} does not accept the token from RAY_AUTH_TOKEN;"
    refused = submit(project, lab, RAY_AUTH_TOKEN="not-the-token-at-all")
    assert_refused(refused, wrong)
    assert "not-the-token-at-all" not in refused.stderr
    file = tmp_path / "token"
    file.write_text("neither is this one\n")
    assert_refused(submit(project, lab, RAY_AUTH_TOKEN_PATH=str(file)), f"does not accept the token from {file};")
    elsewhere = stranger.command("host1", [], project.code)
    done = submit(project, lab, command=elsewhere)
    assert done.returncode == 3
    assert done.stderr.count("\n") == 1
    assert list(project.runs.iterdir()) == []


def test_a_file_that_is_not_there_is_named(lab, project):
    done = submit(project, lab, RAY_AUTH_TOKEN_PATH="/no/such/file")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "RAY_AUTH_TOKEN_PATH: /no/such/file cannot be read" in done.stderr


VERBS = {"run": ["run", "job.yaml"], "doctor": ["doctor"]}


@pytest.mark.parametrize("verb", ["run", pytest.param("doctor", marks=pytest.mark.long)])
def test_a_client_of_the_head_needs_it_too(lab, project, verb):
    environment = {**os.environ, "RAY_ADDRESS": lab.ray_address, "PYTHONPATH": str(REPOSITORY)}
    environment = {key: value for key, value in environment.items() if not key.startswith("RAY_AUTH_")}
    environment |= {"HOME": str(project.code.parent), "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "wrong"}
    environment |= {"DISTRIB_RUNS_DIR": str(project.runs)}
    command = [sys.executable, "-m", "distrib", *VERBS[verb], *(["--address", lab.ray_address])]
    done = subprocess.run(
        lab.command("host1", command, project.code),
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 3, done.stdout + done.stderr
    assert "does not accept" in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(project.runs.iterdir()) == []


def test_with_the_token_it_runs_and_secrets_show_up_nowhere(lab, project, token):
    with (project.code / "lab_jobs.py").open("a") as module:  # imported by the launcher and by every rank
        module.write("\nimport hashlib, os\nprint(hashlib.sha256(os.environ['WANDB_API_KEY'].encode()).hexdigest())\n")
    with Watcher() as watcher:
        done = submit(
            *(project, lab, "--run-id", "run", "--env", f"WANDB_API_KEY={SECRET}"),
            RAY_AUTH_TOKEN=token,
            AWS_SECRET_ACCESS_KEY="also-seen-by-nobody",
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert project.run.status == "finished"
    assert token not in done.stdout + done.stderr
    assert SECRET not in done.stdout + done.stderr
    assert watcher.commands_with(token) == []
    found = files_with(token, project.runs, project.code, lab.folder)
    assert [path for path in found if path != lab.token_file] == []
    assert files_with(SECRET, project.runs, project.code) == []
    shown = [command for command in watcher.commands_with(SECRET) if " submit " not in command]
    assert shown == []
    assert files_with(SECRET, lab.folder) == []
    for rank in range(2):
        assert hashlib.sha256(SECRET.encode()).hexdigest() in project.layout.rank_log(rank).read_text()
