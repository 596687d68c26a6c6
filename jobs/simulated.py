"""A model with real parameters whose forward and backward passes sleep for a set time.

It simulates an accelerator: DDP, its buckets, their traffic and the overlap with the backward pass are real, so scaling
can be measured with more workers than the machine has cores.
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
        count: The number of samples.
    """

    def __init__(self, count: int = 65536) -> None:
        super().__init__(torch.zeros(count, 1), torch.zeros(count, 1))


class _Waits(torch.autograd.Function):
    """Adds the first element of a weight to the input; sleeps for a set time in each direction."""

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
        num_parameters: The number of parameters, float32.
        fixed_seconds: Time of a forward pass for any batch; a backward pass takes twice as long.
        seconds_per_sample: Additional time per sample of the batch.
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
    """A sequence of equal layers.

    Args:
        layers: The number of layers.
        megabytes: The size of all parameters together, in units of 1,000,000 bytes.
        fixed_ms: Time of a forward and backward pass for any batch, in milliseconds.
        ms_per_sample: Additional time per sample of a rank's batch.
    """

    def __init__(
        self, layers: int = 8, megabytes: float = 8.0, fixed_ms: float = 20.0, ms_per_sample: float = 2.0
    ) -> None:
        num_parameters = max(1, int(megabytes * 1e6 / 4 / layers))
        fixed, each = (milliseconds / 1000 / layers / 3 for milliseconds in (fixed_ms, ms_per_sample))
        super().__init__(*(Layer(num_parameters, fixed, each) for _ in range(layers)))
