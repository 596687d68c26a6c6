"""A script whose rank hangs: named with its line; with a session, ended and restarted too."""

import re
import socket
import time

import pytest

pytestmark = [pytest.mark.timeout(150), pytest.mark.long]

HANG_SECONDS = 4
SPEC = f"""
name: example
script: {{file: train.py}}
resources: {{workers: 3, device: cpu}}
failures: {{hang_timeout: {HANG_SECONDS}}}
"""

PLAIN = """
import time
from pathlib import Path

import torch.distributed as dist


def hang():
    Path("hangs").touch()
    while not Path("released").exists():
        time.sleep(0.5)


dist.init_process_group("gloo")
if dist.get_rank() == 1:
    hang()
dist.barrier()
"""

WITH_SESSION = """
import time
from pathlib import Path

import torch

import distrib
from launch_jobs import Mlp, Samples


def hang():
    if session.rank == 1 and session.completed_steps == 2 and not Path("hangs").exists():
        Path("hangs").touch()
        time.sleep(100)


session = distrib.session()
model = Mlp()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
model, optimizer = session.setup(model, optimizer)
for inputs, targets in session.batches(Samples(24), batch_size=6, steps=4):
    hang()
    session.backward(torch.nn.functional.cross_entropy(model(inputs), targets))
    session.update(optimizer)
"""


@pytest.fixture
def start(workplace):
    """Runs a script on three ranks, of which rank 1 hangs."""

    def run(script):
        workplace.write("train.py", script)
        return workplace.start(job=workplace.write("script.yaml", SPEC))

    return run


def test_a_plain_script_that_is_idle_is_reported_with_the_rank_that_the_others_wait_for(workplace, start):
    launch = start(PLAIN)
    launch.wait_until(lambda: "have been idle" in launch.stdout)
    named = time.time() - (workplace.folder / "hangs").stat().st_mtime
    (workplace.folder / "released").touch()
    assert launch.wait(60) == 0, launch.stdout + launch.stderr
    expected = (
        rf"idle for \d+ s .*: rank 1 on {socket.gethostname()} is at train.py:\d+ in hang; the others wait for it"
    )
    assert re.search(expected, launch.stdout), launch.stdout
    assert named < HANG_SECONDS + 10
    assert "most recent call first" in launch.run.layout.rank_log(1).read_text()
    assert "most recent call first" not in launch.stdout


def test_a_script_with_a_session_whose_rank_hangs_is_restarted(workplace, start):
    launch = start(WITH_SESSION)
    assert launch.wait(120) == 0, launch.stdout + launch.stderr
    (restart,) = [event for event in launch.run.events() if event["event"] == "restart"]
    assert restart["message"].startswith(f"rank 1 on {socket.gethostname()} failed: RankHangs"), restart["message"]
    assert re.search(r"at train.py:\d+ in hang", restart["message"])
    (seconds,) = re.findall(r"no step has ended for (\d+) s", restart["message"])
    assert HANG_SECONDS <= int(seconds) <= HANG_SECONDS + 10
