"""What the jobs of the inference tests name: small models in float64 and datasets, honest or with a fault.

The file is copied beside a job's spec, so that it is imported as a user's own module is.
"""

import os
import signal
import time
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import Dataset, TensorDataset

NUM_FEATURES, NUM_CLASSES = 4, 3


class Rows(TensorDataset):
    """Pairs of inputs, float64 [4], and targets; each row is another."""

    def __init__(self, count, seed=1):
        generator = torch.Generator().manual_seed(seed)
        inputs = torch.randn(count, NUM_FEATURES, generator=generator, dtype=torch.float64)
        super().__init__(inputs, torch.arange(count) % NUM_CLASSES)


class Inputs(Dataset):
    """The inputs of `Rows` alone, one by one."""

    def __init__(self, count):
        self.rows = Rows(count)

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return self.rows[index][0]


class Refusing(Inputs):
    """Has one row that it refuses, or that has another length than all others, or that is not a number."""

    def __init__(self, count, row, how="raise"):
        super().__init__(count)
        self.row, self.how = row, how

    def __getitem__(self, index):
        inputs = super().__getitem__(index)
        if index != self.row:
            return inputs
        if self.how == "raise":
            raise KeyError(f"no file for row {index}")
        return torch.cat([inputs, inputs]) if self.how == "long" else inputs * float("nan")


class Augmented(Inputs):
    """Adds noise, which must not depend on the number of workers."""

    def __getitem__(self, index):
        return super().__getitem__(index) + torch.randn(NUM_FEATURES, dtype=torch.float64)


class Triples(Dataset):
    """Samples of a form that only the job can read."""

    def __init__(self, count):
        self.rows = Rows(count)

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        inputs, target = self.rows[index]
        return inputs, target, index


class Mlp(nn.Module):
    """Has what makes evaluation differ from training: BatchNorm and dropout."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(NUM_FEATURES, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, NUM_CLASSES)
        ).double()

    def forward(self, inputs):
        return self.layers(inputs)


class Fussy(Mlp):
    """Refuses inputs whose first feature is not a number or greater than 100."""

    def forward(self, inputs):
        if not (inputs[:, 0] <= 100).all():
            raise ValueError("the first feature must not exceed 100")
        return super().forward(inputs)


class Slow(Mlp):
    """Takes its time for each batch, and has a file `busy` since it has begun with one."""

    def __init__(self, seconds=0.1):
        super().__init__()
        self._seconds = seconds

    def forward(self, inputs):
        Path(__file__).with_name("busy").touch()
        time.sleep(self._seconds)
        return super().forward(inputs)


class Deadly(Mlp):
    """Kills its process in the middle of the rows."""

    def forward(self, inputs):
        if not inputs.requires_grad and len(inputs) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(inputs)


class Summary(Mlp):
    """Gives one value for the whole batch."""

    def forward(self, inputs):
        return super().forward(inputs).mean()


class ByName(Mlp):
    """Takes its inputs by name; with `is_fixed` only as many rows as it sees first when it is traced."""

    def __init__(self, is_fixed=False):
        super().__init__()
        self._is_fixed = is_fixed

    def forward(self, left, right):
        num_rows = int(left.shape[0]) if self._is_fixed else 1
        return super().forward(torch.cat([left, right], dim=1)) * (num_rows / num_rows)


class Restless(Mlp):
    """Never answers the same."""

    def forward(self, inputs):
        return super().forward(inputs) + torch.rand(1, dtype=torch.float64)


class Named(Dataset):
    """Samples of named inputs and a target."""

    def __init__(self, count):
        self.rows = Rows(count)

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        inputs, target = self.rows[index]
        return {"left": inputs[:1], "right": inputs[1:]}, target


def classify(model, batch, names=("a", "b", "c")):
    """A user's `predict`: named columns, text among them."""
    inputs = batch[0] if isinstance(batch, list | tuple) else batch
    probabilities = model(inputs).softmax(dim=1)
    best = probabilities.argmax(dim=1)
    return {"label": [names[index] for index in best.tolist()], "probabilities": probabilities}
