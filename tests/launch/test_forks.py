"""Ranks on this machine are forked from the command's process, which has imported what they need."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.timeout(90)

MODULE = """
import os, sys
from launch_jobs import Mlp

IMPORTED_BY = os.getpid()

class Reporting(Mlp):
    def forward(self, inputs):
        heavy = [name for name in ("torch.distributed.checkpoint", "torch.distributed.tensor", "sympy", "ray")
                 if name in sys.modules]
        with open(f"rank-{os.environ['RANK']}", "w") as file:
            file.write(repr((IMPORTED_BY == os.getppid(), heavy)))
        return super().forward(inputs)
"""


def test_the_launcher_is_imported_before_torch():
    program = "import sys, distrib.launch.start, distrib.launch.local.launcher; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_ranks_have_the_modules_of_the_command_and_no_more(workplace):
    """Saving a checkpoint and restoring one import nothing heavy either."""
    workplace.write("reporting.py", MODULE)
    sets = ("model=reporting:Reporting", "checkpoint.every=2 steps")
    launch = workplace.start("--json", *(part for text in sets for part in ("--set", text)))
    assert launch.wait(60) == 0, launch.stderr
    assert json.loads(launch.stdout)["status"] == "finished"
    assert [(workplace.folder / f"rank-{rank}").read_text() for rank in range(2)] == ["(True, [])"] * 2
