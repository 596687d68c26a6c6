"""A rank that the kernel kills since memory ran out is told from one that somebody kills; full memory gets advice."""

import os
import secrets
import sys
from pathlib import Path

import pytest

from distrib.launch.local.out_of_memory import OutOfMemoryKills

pytestmark = pytest.mark.timeout(90)

ROOT = Path("/sys/fs/cgroup")
LIMIT = 1500 * 2**20
JOB = """\
import os, resource
import torch
from torch import nn

class Hungry(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.layer, self.how, self.kept = nn.Linear(4, 3), how, []

    def forward(self, inputs):
        if os.environ["RANK"] == "1" and self.training:
            if self.how == "limit":
                resource.setrlimit(resource.RLIMIT_AS, (2**33, 2**33))
                self.kept.append(bytearray(2**35))
            while True:
                self.kept.append(bytearray(b"x") * 2**26)
        return self.layer(inputs)
"""


@pytest.fixture
def group():
    """A control group whose memory is limited."""
    is_version_2 = (ROOT / "cgroup.controllers").exists()
    folder = (ROOT if is_version_2 else ROOT / "memory") / f"distrib-test-{secrets.token_hex(4)}"
    limit = folder / ("memory.max" if is_version_2 else "memory.limit_in_bytes")
    try:
        folder.mkdir()
        limit.write_text(str(LIMIT))
    except OSError as error:
        if folder.is_dir():
            folder.rmdir()
        pytest.skip(f"control groups cannot be made here: {error}")
    yield folder
    folder.rmdir()


def start(workplace, how, prefix=()):
    workplace.write("hungry.py", JOB)
    model = f"{{target: hungry:Hungry, args: {{how: {how}}}}}"
    command = [sys.executable, "-m", "distrib", "run", "job.yaml", "--runs-dir", str(workplace.runs)]
    data = "{target: launch_jobs:Samples, args: {count: 22}}"
    command += ["--set", f"model={model}", "--set", f"data.train={data}", "--set", "failures.max_restarts=0"]
    return workplace.start_command([*prefix, *command])


def test_the_kernel_kills_a_rank_for_lack_of_memory(workplace, group):
    enter = ["sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh"]
    launch = start(workplace, "kernel", enter)
    assert launch.wait(60) == 1, launch.stderr
    error = launch.run.error
    assert (error["rank"], error["type"], error["kind"]) == (1, "SIGKILL", "infrastructure")
    assert "the memory limit of its control group (container, job) was reached" in error["message"]


def test_a_rank_whose_allocator_finds_no_memory(workplace):
    launch = start(workplace, "limit")
    assert launch.wait(60) == 1, launch.stderr
    error = launch.run.error
    assert (error["rank"], error["type"], error["kind"]) == (1, "MemoryError", "user")
    assert "the host's memory is full" in error["advice"]
    assert "hungry.py" in error["traceback"]
    assert "the host's memory is full" in launch.stdout


def test_what_counts_say():
    before = OutOfMemoryKills(2, 7)
    assert "control group" in OutOfMemoryKills(3, 8).explain_since(before)
    assert "of this machine" in OutOfMemoryKills(2, 8).explain_since(before)
    assert "another program sent it" in OutOfMemoryKills(2, 7).explain_since(before)
    assert "when memory runs out" in OutOfMemoryKills(None, None).explain_since(OutOfMemoryKills(None, None))


@pytest.mark.skipif(not os.path.exists("/proc/vmstat"), reason="Linux counts them")
def test_counts_are_read():
    assert OutOfMemoryKills.so_far() != OutOfMemoryKills(None, None)
