"""A model with real parameters whose forward and backward passes take a set time without using a core.

It stands in for an accelerator: DDP, its buckets, their traffic and its overlap with the backward pass are all real, so
that scaling can be measured over more workers than a machine has cores.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset


class Blank(TensorDataset):
    """Pairs of inputs and targets, both float32 [1] of zeros.

    Args:
        count: How many.
    """

    def __init__(self, count: int = 65536) -> None:
        super().__init__(torch.zeros(count, 1), torch.zeros(count, 1))


class _Waits(torch.autograd.Function):
    """Adds the mean of a weight to its input, taking a set time each way."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, forward_seconds: float, backward_seconds: float) -> Tensor:
        ctx.backward_seconds, ctx.weight_shape = backward_seconds, weight.shape
        time.sleep(forward_seconds)
        return inputs + weight[0]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        (gradient,) = gradients
        time.sleep(ctx.backward_seconds)
        weight_gradient = gradient.new_zeros(ctx.weight_shape)
        weight_gradient[0] = gradient.sum()
        return gradient, weight_gradient, None, None


class Layer(nn.Module):
    """One layer.

    Args:
        num_parameters: Its parameters, float32.
        fixed_seconds: What a forward pass takes for any batch; a backward pass takes twice as long.
        seconds_per_sample: What each sample of the batch adds to that.
    """

    def __init__(self, num_parameters: int, fixed_seconds: float, seconds_per_sample: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(num_parameters))
        self.fixed_seconds = fixed_seconds
        self.seconds_per_sample = seconds_per_sample

    def forward(self, inputs: Tensor) -> Tensor:
        """Inputs, float32 [batch, 1], plus one number."""
        seconds = self.fixed_seconds + self.seconds_per_sample * len(inputs)
        outputs: Tensor = _Waits.apply(inputs, self.weight, seconds, 2 * seconds)  # type: ignore[no-untyped-call]
        return outputs


class Simulated(nn.Sequential):
    """Equal layers, one after the other.

    Args:
        layers: How many.
        megabytes: All parameters together, in units of 1,000,000 bytes.
        fixed_ms: What a forward and backward pass takes for any batch, in milliseconds.
        ms_per_sample: What each sample of a rank's batch adds to that.
    """

    def __init__(
        self, layers: int = 8, megabytes: float = 8.0, fixed_ms: float = 20.0, ms_per_sample: float = 2.0
    ) -> None:
        num_parameters = max(1, int(megabytes * 1e6 / 4 / layers))
        fixed, each = (milliseconds / 1000 / layers / 3 for milliseconds in (fixed_ms, ms_per_sample))
        super().__init__(*(Layer(num_parameters, fixed, each) for _ in range(layers)))
