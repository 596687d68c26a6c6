"""A rank that is slow in its backward pass, which no duration of a backward pass shows, is named by a real run."""

import pytest

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
