"""Slow ranks are named by real runs, one that is slow in its backward pass too; healthy ranks are not."""

import pytest

from distrib.observe.summary import summarize
from tests.support.throttle import Throttle

pytestmark = [pytest.mark.timeout(180), pytest.mark.long]

MODEL = """\
import os, time
from torch import nn

class Slow(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, inputs):
        hidden = self.first(inputs)
        time.sleep(0.02)
        if os.environ["RANK"] == "1":
            hidden.register_hook(lambda _: time.sleep(0.2))
        return self.last(hidden)
"""


def test_a_rank_that_is_slow_in_backward(workplace):
    workplace.write("slow.py", MODEL)
    sets = ["model=slow:Slow", "train.epochs=null", "train.steps=80", "train.log_every=5", "resources.workers=3"]
    launch = workplace.start(*(part for text in sets for part in ("--set", text)))
    assert launch.wait(120) == 0, launch.stderr
    (warning,) = [event for event in launch.run.events() if event["event"] == "warning" and "slow_at" in event]
    assert (warning["rank"], warning["slow_at"]) == (1, "compute")
    last = [event for event in launch.run.events() if event["event"] == "train"][-2]
    assert last["rank_compute_seconds"][1] > 2 * last["rank_compute_seconds"][0]
    assert last["rank_wait_seconds"][0] > last["rank_wait_seconds"][1]
    assert "rank 1 on " in launch.stdout


BUSY = """\
import hashlib, os
from pathlib import Path
from launch_jobs import Mlp

class Busy(Mlp):
    def forward(self, inputs):
        Path(f"pid-{os.environ['RANK']}").write_text(str(os.getpid()))
        for _ in range(12):
            hashlib.sha256(bytes(2**21)).digest()
        return super().forward(inputs)
"""


def test_a_rank_that_gets_little_of_its_cpu(workplace):
    workplace.write("busy.py", BUSY)
    sets = ["model=busy:Busy", "train.epochs=null", "train.steps=90", "train.log_every=5", "checkpoint.every=never"]
    launch = workplace.start(*(f"--set={text}" for text in sets))
    launch.wait_for_step(1)
    throttle = Throttle(int((workplace.folder / "pid-1").read_text()))
    throttle.start()
    try:
        assert launch.wait(150) == 0, launch.stdout + launch.stderr
    finally:
        throttle.end()
    (warning,) = [event for event in launch.run.events() if "slow_at" in event]
    assert (warning["rank"], warning["slow_at"]) == (1, "compute")
    assert "look for other programs on its host" in warning["message"]
    first, second = summarize(launch.run, 0)["ranks"]
    assert (first["slow_at"], second["slow_at"]) == (None, "compute")
    assert second["compute_seconds"] > 2 * first["compute_seconds"]


VARYING = """\
import random, time
from launch_jobs import Mlp

class Varying(Mlp):
    \"""Needs 2 to 20 ms a step, on each rank by chance.\"""

    def forward(self, inputs):
        time.sleep(random.uniform(0.002, 0.02))
        return super().forward(inputs)
"""


@pytest.mark.parametrize("model", ["launch_jobs:Mlp", "varying:Varying"])
def test_a_thousand_healthy_steps_raise_no_alarm(workplace, model):
    workplace.write("varying.py", VARYING)
    sets = [f"model={model}", "train.epochs=null", "train.steps=1000", "train.log_every=10", "failures.hang_timeout=5"]
    sets += ["data.eval={target: launch_jobs:Samples, args: {count: 10}}", "train.eval_every=100 steps"]
    launch = workplace.start(*(f"--set={text}" for text in [*sets, "checkpoint.every=100 steps"]))
    assert launch.wait(150) == 0, launch.stdout + launch.stderr
    events = launch.run.events()
    assert not [event for event in events if event["event"] == "restart" or "slow_at" in event]
    assert "no step has ended" not in launch.stdout
    assert max(event["step"] for event in events) == 1000
