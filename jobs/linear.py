"""Logistic regression on synthetic data with a known optimal loss: the smallest job."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

NUM_FEATURES = 10
NUM_CLASSES = 2
NUM_SAMPLES = {"train": 8192, "test": 2048}


class Drawn(TensorDataset):
    """Pairs of inputs, float32 [10], standard normal, and a target, int64 in 0 … 1, drawn by `true_model`.

    Args:
        split: `train` (8,192 samples) or `test` (2,048 other samples).
    """

    def __init__(self, split: Literal["train", "test"]) -> None:
        if split not in NUM_SAMPLES:
            raise ValueError(f"this dataset has the splits train and test, not {split!r}")
        generator = torch.Generator().manual_seed(1 + list(NUM_SAMPLES).index(split))
        inputs = torch.randn(NUM_SAMPLES[split], NUM_FEATURES, generator=generator)
        probabilities = true_model()(inputs).exp()
        super().__init__(inputs, torch.multinomial(probabilities, 1, generator=generator).flatten())


class LogSoftmaxLinear(nn.Module):
    """One linear layer: inputs, float32 [batch, 10], to log probabilities, float32 [batch, 2]."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(NUM_FEATURES, NUM_CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        """The log probabilities of the two classes."""
        return torch.log_softmax(self.linear(inputs), dim=-1)


@torch.no_grad()
def true_model() -> LogSoftmaxLinear:
    """The model that the targets are drawn from, which training has to find; without gradients."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):  # initializing a layer draws numbers that are overwritten below
        model = LogSoftmaxLinear().requires_grad_(False)
    for parameter in model.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model


def optimal_loss(split: Literal["train", "test"] = "test") -> float:
    """The mean negative log-likelihood, in nats, of a split's targets under the model that they are drawn from.

    The expected loss of a model fitted to n training samples is about d / 2n larger on other samples, where d = 11 is
    the number of free parameters of two classes (Wilks' theorem): 0.0007 with the 8,192 samples here.
    """
    inputs, targets = Drawn(split).tensors
    return nn.functional.nll_loss(true_model()(inputs), targets).item()
