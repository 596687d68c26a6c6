"""Gradients of a loss, summed over the ranks in buckets while the backward pass runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from distrib.train.health.times import RankTimes
from distrib.train.session.gather import BackwardWeight

Gradients = Callable[[torch.Tensor, Sequence[torch.Tensor]], list[torch.Tensor | None]]
"""Computes the gradients of a loss with respect to parameters; None for those that it does not reach."""

_MAX_LAYOUTS = 16


@dataclass(frozen=True)
class _Bucket:
    """Parameters whose gradients are summed in one collective.

    Attributes:
        numbers: Which of the parameters.
        flat: Their gradients, one after the other.
        views: The gradient of each in `flat`, in its parameter's shape.
    """

    numbers: list[int]
    flat: torch.Tensor
    views: list[torch.Tensor]


class GradientReducer:
    """Computes gradients and sums them over the ranks.

    Buckets are filled from the last parameter to the first, about the order in which gradients become ready, and are
    reduced in that order as soon as they are full. The layout depends on the parameters only, so every attempt sums in
    the same order.

    Args:
        control_group: A gloo group of all ranks.
        bucket_bytes: The size of a bucket.
        weight: Is given the weight of the backward pass while it runs.
        times: Measures how long this rank waits for the others.
    """

    def __init__(
        self, control_group: dist.ProcessGroup, bucket_bytes: float, weight: BackwardWeight, times: RankTimes
    ) -> None:
        self._control_group = control_group
        self._bucket_bytes = bucket_bytes
        self._weight = weight
        self._times = times
        self._layouts: dict[tuple[int, ...], tuple[Sequence[torch.Tensor], list[_Bucket]]] = {}

    def sum_gradients(
        self,
        loss: torch.Tensor,
        parameters: Sequence[torch.Tensor],
        weight: torch.Tensor | float,
        *,
        compute: Gradients | None = None,
        carried: Mapping[int, torch.Tensor] | None = None,
    ) -> list[torch.Tensor | None]:
        """The gradients of the sum of all ranks' losses; None for a parameter that no rank's loss reaches.

        Args:
            loss: This rank's loss, already scaled by its weight.
            parameters: The same on all ranks.
            weight: This rank's weight; with 0 the rank adds nothing, even if its loss is NaN.
            compute: Computes this rank's gradients; by default those of the parameters alone.
            carried: What this rank adds to the gradients of parameters, by their numbers.
        """
        with self._weighing(weight):
            if dist.get_world_size() == 1:
                return self._compute(loss, parameters, compute)
            return self._reduce(loss, parameters, weight, compute or parameter_gradients, carried or {})

    def own_gradients(
        self,
        loss: torch.Tensor,
        parameters: Sequence[torch.Tensor],
        weight: torch.Tensor | float,
        *,
        compute: Gradients | None = None,
    ) -> list[torch.Tensor | None]:
        """The gradients of this rank's loss alone; see `sum_gradients`."""
        with self._weighing(weight):
            return self._compute(loss, parameters, compute)

    @contextmanager
    def _weighing(self, weight: torch.Tensor | float) -> Iterator[None]:
        self._weight.value = weight
        try:
            yield
        finally:
            self._weight.value = None

    def _compute(
        self, loss: torch.Tensor, parameters: Sequence[torch.Tensor], compute: Gradients | None
    ) -> list[torch.Tensor | None]:
        gradients = (compute or parameter_gradients)(loss, parameters)
        return [None if gradient is None else self._weight.silence(gradient) for gradient in gradients]

    def _reduce(
        self,
        loss: torch.Tensor,
        parameters: Sequence[torch.Tensor],
        weight: torch.Tensor | float,
        compute: Gradients,
        carried: Mapping[int, torch.Tensor],
    ) -> list[torch.Tensor | None]:
        buckets = self._buckets(parameters)
        passing = _Pass(buckets, self._weight, carried)
        hooks = [
            parameter.register_hook(passing.hook(number))  # type: ignore[no-untyped-call]
            for number, parameter in enumerate(parameters)
        ]
        try:
            gradients = compute(loss, parameters)
        finally:
            for hook in hooks:
                hook.remove()
        has_weight = isinstance(weight, torch.Tensor) or weight > 0
        reached = torch.tensor(
            [number in carried or (has_weight and gradient is not None) for number, gradient in enumerate(gradients)],
            dtype=torch.uint8,
        )
        flags = dist.all_reduce(reached, op=dist.ReduceOp.MAX, group=self._control_group, async_op=True)
        assert flags is not None
        with self._times.waiting():
            passing.finish()
            flags.wait()
        summed: list[torch.Tensor | None] = [None] * len(parameters)
        is_reached = reached.tolist()
        for bucket in buckets:
            for number, view in zip(bucket.numbers, bucket.views, strict=True):
                summed[number] = view if is_reached[number] else None
        return summed

    def _buckets(self, parameters: Sequence[torch.Tensor]) -> list[_Bucket]:
        key = tuple(map(id, parameters))
        if key not in self._layouts:
            if len(self._layouts) >= _MAX_LAYOUTS:
                self._layouts.clear()
            self._layouts[key] = (parameters, self._lay_out(parameters))
        return self._layouts[key][1]

    def _lay_out(self, parameters: Sequence[torch.Tensor]) -> list[_Bucket]:
        groups: list[list[int]] = []
        open_groups: dict[torch.dtype, tuple[list[int], int]] = {}
        for number in reversed(range(len(parameters))):
            parameter = parameters[number]
            numbers, size = open_groups.get(parameter.dtype, ([], 0))
            if not numbers:
                groups.append(numbers)
            numbers.append(number)
            size += parameter.nbytes
            open_groups[parameter.dtype] = ([], 0) if size >= self._bucket_bytes else (numbers, size)
        return [_make_bucket(numbers, [parameters[number] for number in numbers]) for numbers in groups]


class _Pass:
    """One backward pass: copies gradients into their buckets and reduces full ones in order."""

    def __init__(self, buckets: list[_Bucket], weight: BackwardWeight, carried: Mapping[int, torch.Tensor]) -> None:
        self._buckets = buckets
        self._weight = weight
        self._missing = [len(bucket.numbers) for bucket in buckets]
        self._places = {
            number: (index, view)
            for index, bucket in enumerate(buckets)
            for number, view in zip(bucket.numbers, bucket.views, strict=True)
        }
        self._pending: list[Any] = []
        for bucket in buckets:
            bucket.flat.zero_()
        for number, gradient in carried.items():
            self._places[number][1].copy_(gradient)
        self._carried = carried

    def hook(self, number: int) -> Any:
        """What to call with a parameter's gradient."""
        index, view = self._places[number]

        def copy(gradient: torch.Tensor) -> None:
            silenced = self._weight.silence(gradient)
            if number in self._carried:
                view.add_(silenced)
            else:
                view.copy_(silenced)
            self._missing[index] -= 1
            while len(self._pending) < len(self._buckets) and self._missing[len(self._pending)] == 0:
                self._reduce_next()

        return copy

    def finish(self) -> None:
        """Reduces the buckets that are not full, since some parameters were not reached, and waits for all."""
        while len(self._pending) < len(self._buckets):
            self._reduce_next()
        for work in self._pending:
            work.wait()

    def _reduce_next(self) -> None:
        flat = self._buckets[len(self._pending)].flat
        self._pending.append(dist.all_reduce(flat, async_op=True))


def _make_bucket(numbers: list[int], parameters: list[torch.Tensor]) -> _Bucket:
    flat = parameters[0].new_zeros(sum(parameter.numel() for parameter in parameters))
    parts = torch.split(flat, [parameter.numel() for parameter in parameters])
    return _Bucket(numbers, flat, [part.view(p.shape) for part, p in zip(parts, parameters, strict=True)])


def parameter_gradients(loss: torch.Tensor, parameters: Sequence[torch.Tensor]) -> list[torch.Tensor | None]:
    """The gradients of `parameters`, and of nothing else; None for those that the loss does not reach."""
    if not loss.requires_grad:
        return [None] * len(parameters)
    return list(torch.autograd.grad(loss, parameters, allow_unused=True))
