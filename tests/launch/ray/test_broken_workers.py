"""Real Ray workers that cannot start: the run ends with what they wrote instead of waiting for them."""

import pytest

from tests.support.launch_process import REPOSITORY

pytestmark = [pytest.mark.ray, pytest.mark.long, pytest.mark.timeout(400)]

BROKEN = """
import os, sys

if any(argument.endswith("default_worker.py") for argument in sys.orig_argv):
    print("ModuleNotFoundError: No module named 'not_there'", file=sys.stderr, flush=True)
    os._exit(1)
"""


def test_workers_whose_interpreter_ends_at_once(workplace):
    workplace.write("sitecustomize.py", BROKEN)
    launch = workplace.start("--on", "ray", env={"PYTHONPATH": f"{workplace.folder}:{REPOSITORY}"})
    assert launch.wait(300) == 3, launch.stdout + launch.stderr
    assert "Ray cannot start workers on" in launch.stderr
    assert "No module named 'not_there'" in launch.stderr
    assert "Traceback" not in launch.stderr
    assert launch.run.status == "failed"
    launch.wait_until_gone()
    workplace.assert_clean()
