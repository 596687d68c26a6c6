"""Experiments run the real command in a shared folder."""

import pytest

from tests.support.browser import axe, browser, visit  # noqa: F401 - fixtures
from tests.support.launch_process import Workplace

JOB = """\
name: simulated
model: {target: scale_jobs:Simulated, args: {layers: 3, megabytes: 0.3, fixed_ms: 6, ms_per_sample: 0.5}}
data:
  train: {target: scale_jobs:Blank, args: {count: 37}}
  batch_size: 12
loss: torch.nn:MSELoss
optimizer: {target: torch.optim:SGD, args: {lr: 0.01}}
train: {epochs: 1}
ddp: {bucket_mb: 0.1}
resources: {device: cpu}
"""

MODULE = """\
import os
from jobs.simulated import Blank, Simulated as Whole

class Simulated(Whole):
    def forward(self, inputs):
        if os.environ["WORLD_SIZE"] == "3":
            raise RuntimeError("three are too many")
        return super().forward(inputs)
"""


@pytest.fixture(scope="module")
def shared_workplace(tmp_path_factory):
    """A folder with a job that fails on three workers."""
    place = Workplace(tmp_path_factory.mktemp("workplace"))
    place.write("job.yaml", JOB)
    place.write("scale_jobs.py", MODULE)
    yield place
    place.close()
