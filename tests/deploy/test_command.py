"""`distrib submit --render` as users type it."""

import json
import subprocess
import sys

import pytest
import yaml


@pytest.fixture
def submit(folder):
    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "distrib", "submit", "jobs/digits.yaml", *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


def test_the_file_alone_is_on_stdout(submit):
    done = submit("--render", "kuberay", "--runs-dir", "s3://bucket/x", "--with", "storage_secret=s")
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout)["kind"] == "RayJob"
    assert "--device cuda asks for one per worker" in done.stderr
    done = submit("--render", "slurm", "--runs-dir", "/shared", "--device", "cpu", "--json", "--run-id", "mine")
    assert json.loads(done.stdout)["id"] == "mine"
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--render", "kubray"), "--render: no renderer is called 'kubray'; did you mean kuberay?"),
        (("--render", "slurm", "--on", "slurm"), "--render and --on exclude each other"),
        (("--render", "slurm", "--address", "http://x:8265"), "--render and --address exclude each other"),
        (("--on", "kuberay"), "--on: 'kuberay' takes no jobs"),
        (("--with", "image=x", "--address", "http://x:8265"), "--with: settings belong to --render or --on"),
        (("--render", "slurm"), "'runs' is relative"),
        (("--render", "slurm", "--with", "x"), "--with: 'x' is not NAME=VALUE"),
        (("--render", "kuberay", "--env", "API_KEY=hunter22"), "--env: API_KEY looks like a secret"),
    ],
)
def test_bad_input_is_one_line(submit, arguments, message):
    folder = () if message == "'runs' is relative" else ("--runs-dir", "/shared")
    done = submit(*arguments, *folder)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "hunter22" not in done.stderr
