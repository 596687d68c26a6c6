"""Handwritten digits: scikit-learn's 1,797 real images of 8×8 pixels, and a small network that classifies them."""

from __future__ import annotations

from typing import Literal

import numpy
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

NUM_SAMPLES = 1797
NUM_PIXELS = 64
NUM_CLASSES = 10


class Digits(TensorDataset):
    """One split of the digits: pairs of inputs, float32 [64] in 0 … 1, and a target, int64 in 0 … 9.

    The test split is a fixed fifth of the images; the train split is the rest.

    Args:
        split: `train` (1,437 images) or `test` (360 images).
    """

    def __init__(self, split: Literal["train", "test"]) -> None:
        from sklearn.datasets import load_digits

        indices = split_indices(split)
        digits = load_digits()
        darkest = 16
        inputs = torch.tensor(digits.data, dtype=torch.float32) / darkest
        targets = torch.tensor(digits.target, dtype=torch.int64)
        super().__init__(inputs[indices], targets[indices])


def split_indices(split: Literal["train", "test"]) -> Tensor:
    """The indices of scikit-learn's images in a split: int64, ascending.

    Every fifth image of a fixed shuffle is held out. NumPy guarantees that the numbers of `RandomState` never change.

    Raises:
        ValueError: There is no such split.
    """
    if split not in ("train", "test"):
        raise ValueError(f"digits have the splits train and test, not {split!r}")
    shuffled = torch.from_numpy(numpy.random.RandomState(0).permutation(NUM_SAMPLES))
    held_out = torch.zeros(NUM_SAMPLES, dtype=torch.bool)
    held_out[shuffled[::5]] = True
    return torch.nonzero(held_out if split == "test" else ~held_out).flatten()


class Mlp(nn.Module):
    """Two hidden layers: inputs, float32 [batch, 64], to logits, float32 [batch, 10].

    Args:
        hidden: Units per hidden layer.
    """

    def __init__(self, hidden: int = 256) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(NUM_PIXELS, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, NUM_CLASSES),
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """The logits of the ten digits."""
        return self.layers(inputs)
