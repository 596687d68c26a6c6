"""Rows of all ranks, with gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from distrib.train.health.times import RankTimes


@dataclass
class BackwardWeight:
    """The weight of the loss whose backward pass runs; without weight its gradients do not leave the rank.

    Attributes:
        value: A number, a scalar tensor, or None while no weighted backward pass runs.
    """

    value: torch.Tensor | float | None = None

    def silence(self, gradient: torch.Tensor) -> torch.Tensor:
        """`gradient`, or zeros if the weight is 0: also instead of the NaN that the mean over nothing has."""
        if self.value is None:
            return gradient
        if isinstance(self.value, torch.Tensor):
            return torch.where(self.value.to(gradient.device) > 0, gradient, torch.zeros_like(gradient))
        return gradient if self.value > 0 else torch.zeros_like(gradient)


@dataclass(frozen=True)
class Gatherer:
    """Gathers rows over a group of its own, so that its collectives can overlap with those of gradients.

    Attributes:
        group: For tensors on the ranks' devices.
        control_group: A gloo group, for numbers of rows.
        weight: The weight of the backward pass that runs.
        times: Measures how long this rank waits for the others.
    """

    group: dist.ProcessGroup
    control_group: dist.ProcessGroup
    weight: BackwardWeight
    times: RankTimes

    def gather(self, tensor: torch.Tensor, *, counts: bool) -> tuple[torch.Tensor, int]:
        """The rows of all ranks in rank order, and the position of this rank's first one.

        Args:
            tensor: [rows, …]; all ranks have the same further dimensions and type.
            counts: Whether this rank's rows are part of the global batch.
        """
        mine = tensor.shape[0] if counts else 0
        sizes = self._sizes(mine)
        rows: torch.Tensor = _Gather.apply(tensor, sizes, self)  # type: ignore[no-untyped-call]
        return rows, sum(sizes[: dist.get_rank(self.control_group)])

    def _sizes(self, mine: int) -> list[int]:
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(dist.get_world_size(self.control_group))]
        with self.times.waiting():
            dist.all_gather(sizes, torch.tensor([mine]), group=self.control_group)
        return [int(size) for size in sizes]


class _Gather(torch.autograd.Function):
    """Concatenates the rows of all ranks; its backward pass sums what all ranks' losses say about each row."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor, sizes: list[int], gatherer: Gatherer) -> torch.Tensor:
        rank = dist.get_rank(gatherer.group)
        ctx.rank, ctx.sizes, ctx.gatherer, ctx.shape = rank, sizes, gatherer, tensor.shape
        largest = max(sizes)
        padded = tensor.new_zeros((largest, *tensor.shape[1:]))
        padded[: sizes[rank]] = tensor[: sizes[rank]]
        rows = [torch.empty_like(padded) for _ in sizes]
        with gatherer.times.waiting():
            dist.all_gather(rows, padded, group=gatherer.group)
        return torch.cat([part[:size] for part, size in zip(rows, sizes, strict=True)])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        summed = ctx.gatherer.weight.silence(gradient).contiguous().clone()
        with ctx.gatherer.times.waiting():
            dist.all_reduce(summed, group=ctx.gatherer.group)
        first = sum(ctx.sizes[: ctx.rank])
        mine = gradient.new_zeros(ctx.shape)  # a row that does not count has no gradient
        mine[: ctx.sizes[ctx.rank]] = summed[first : first + ctx.sizes[ctx.rank]]
        return mine, None, None
