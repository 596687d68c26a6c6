"""Gradients of weighted sums become those of the mean over the global batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist

from distrib.compat.pytorch.tensors import multiply_


def total_weight(mine: torch.Tensor) -> torch.Tensor:
    """The sum of the ranks' weights, each a float64 scalar; all ranks call it together."""
    total = mine.clone()
    if dist.get_world_size() > 1:
        dist.all_reduce(total)
    return total


def divide_by_weight(gradients: Sequence[torch.Tensor], total: torch.Tensor, num_samples: int) -> None:
    """Turns gradients of Σ w·L / `num_samples` over the ranks into those of Σ w·L / Σ w, in place.

    Args:
        gradients: The same on all ranks; zero afterwards if nothing has weight.
        total: Σ w, a scalar.
        num_samples: What the sum was divided by.
    """
    multiply_(gradients, torch.where(total > 0, num_samples / total, 0.0))
