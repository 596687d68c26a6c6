"""The model, data and batch that both sides of a comparison train: each side imports them from here."""

import os
import signal
import time
from pathlib import Path

import torch
from sklearn.datasets import load_digits

from jobs.char_gpt import Gpt

WORLD_SIZE = 2
DIGITS_BATCH_SIZE = 64
DIGITS_EPOCHS = 20
CHAR_GPT_BATCH_SIZE = 16
CHAR_GPT_STEPS = 40
LEARNING_RATE = 1e-3
BALLAST_MEGABYTES = 960
SAVED_STEPS = 100
SAVED_EVERY = 20
KILLED_EPOCHS = 75
KILLED_AT_STEP = 2000
KILLED_FILE = "DISTRIB_BENCH_KILLED"
"""Environment variable that names the file in which a rank leaves when it killed itself; by its name it reaches
ranks on a cluster too."""


class Digits(torch.utils.data.TensorDataset):
    """All of scikit-learn's digits: inputs, float32 [1797, 64] in 0 … 1, and targets, int64 [1797]."""

    def __init__(self) -> None:
        digits = load_digits()
        super().__init__(torch.tensor(digits.data, dtype=torch.float32) / 16, torch.tensor(digits.target))


class Mlp(torch.nn.Sequential):
    """Inputs, float32 [batch, 64], to logits, float32 [batch, 10]."""

    def __init__(self) -> None:
        linear, relu = torch.nn.Linear, torch.nn.ReLU
        super().__init__(linear(64, 512), relu(), linear(512, 512), relu(), linear(512, 10))


class FatalMlp(Mlp):
    """Kills rank 1 with SIGKILL on the way, once."""

    def __init__(self) -> None:
        super().__init__()
        self._num_calls = 0

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """The logits."""
        self._num_calls += 1
        file = Path(os.environ[KILLED_FILE])
        if self._num_calls == KILLED_AT_STEP and os.environ["RANK"] == "1" and not file.exists():
            file.write_text(str(time.time()))
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(inputs)


class Ballasted(Gpt):
    """A GPT with more state than it trains.

    Args:
        megabytes: The size of what is not trained, in sixteen parameters.
    """

    def __init__(self, megabytes: int) -> None:
        super().__init__(width=256)
        count = megabytes * 10**6 // 4 // 16
        tensors = [torch.nn.Parameter(torch.full([count], float(i)), requires_grad=False) for i in range(16)]
        self.ballast = torch.nn.ParameterList(tensors)
