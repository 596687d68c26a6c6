"""Runs the command as users do: in its own process and an empty folder."""

import os
import subprocess
import sys

import pytest


@pytest.fixture
def distrib(tmp_path):
    """Runs `distrib` with arguments; gives its result, with stdout and stderr as text."""
    environment = _environment()

    def run(*arguments, env=None, **options):
        command = [sys.executable, "-m", "distrib", *map(str, arguments)]
        known = {"cwd": tmp_path, "capture_output": True, "text": True, "timeout": 60}
        return subprocess.run(command, env={**environment, **(env or {})}, **{**known, **options})

    return run


@pytest.fixture
def forked_distrib(command_server, tmp_path):
    """The same for what imports torch, in a process that has imported it already."""

    def run(*arguments):
        return command_server.run(arguments, tmp_path, environment=_environment())

    return run


def _environment():
    environment = {name: value for name, value in os.environ.items() if name != "DISTRIB_RUNS_DIR"}
    return environment | {"COLUMNS": "80", "TERM": "xterm"}


@pytest.fixture
def job(tmp_path):
    """The file of a job whose modules do not exist: good for whatever must be refused before they are imported."""
    path = tmp_path / "job.yaml"
    path.write_text(
        "name: nothing\n"
        "model: nowhere:Model\n"
        "data: {train: nowhere:Data, batch_size: 8}\n"
        "loss: nowhere:Loss\n"
        "optimizer: nowhere:Optimizer\n"
        "train: {steps: 3}\n"
    )
    return path
