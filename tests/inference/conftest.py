"""Fixtures for runs and the commands that use them; each test has its own folder."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.launch_process import Workplace
from tests.support.s3_fixtures import bucket, s3_proxy, s3_server  # noqa: F401 - fixtures

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def workplace(tmp_path):
    """A folder to launch commands in."""
    place = Workplace(tmp_path)
    yield place
    place.close()


@pytest.fixture(scope="module")
def predict_all():
    """Predicts all cases sequentially in a process that can be forked; returns their results."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "tests.support.predict_program"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY,
                               env=environment)  # fmt: skip

    def run(cases):
        results = []
        for case in cases:
            process.stdin.write(json.dumps(case) + "\n")
            process.stdin.flush()
            results.append(json.loads(process.stdout.readline()))
        return results

    yield run
    process.stdin.close()
    try:
        process.wait(60)
    finally:
        process.kill()
