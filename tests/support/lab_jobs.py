"""What the jobs of tests/lab train: small, in float64, at a pace that can be changed while they train."""

import time
from pathlib import Path

import torch.distributed as dist
from exact_jobs import Mlp


class Paced(Mlp):
    """Takes as many seconds for each training step as the file `pace` says, if there is one.

    Where `failing` names a step, rank 1 raises in it, having noted when in the file `raised` beside `pace`.
    """

    def __init__(self, pace=None, failing=None):
        super().__init__()
        self._pace = None if pace is None else Path(pace)
        self._failing, self._num_steps = failing, 0

    def forward(self, inputs):
        if self.training:
            self._num_steps += 1
            if self._num_steps == self._failing and dist.get_rank() == 1:
                self._pace.with_name("raised").write_text(repr(time.time()))
                raise ValueError("no such label: 7")
            if self._pace is not None and self._pace.exists():
                time.sleep(float(self._pace.read_text() or 0))
        return super().forward(inputs)
