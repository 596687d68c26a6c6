"""What a loss of the job's own divides by, as far as autograd's graph shows it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch

from distrib.compat.pytorch.autograd import saved

_MAX_NODES = 64
"""Losses are near the root of the graph."""
_UNCHANGED = ("Add", "Sub", "View", "ReshapeAlias", "Alias", "Squeeze", "Unsqueeze", "ToCopy", "UnsafeView")
"""The operations, as the beginnings of node names, through which a sum stays a sum."""
_DEPTH = 6
_UNSIGNED = 2**64
"""Negative dimensions are saved as unsigned numbers."""
_MEAN, _SUM = 1, 2
"""`reduction` as torch's losses save it."""


class LossGraph:
    """Looks for what makes a loss another than the mean over the samples of its batch; nothing is computed.

    It finds torch's cross entropy that ignores targets or weighs classes, sums over the samples, a division by a number
    that is in no fixed proportion to the samples, as by the number of unmasked tokens, and a mean over elements whose
    number per sample varies, as over the padded positions of sequences.
    """

    def __init__(self) -> None:
        self._divisors: dict[tuple[str, int], set[tuple[float, int]]] = {}
        self._ratios: dict[tuple[str, int], list[float]] = {}

    def find(self, loss: torch.Tensor, num_samples: int) -> str | None:
        """What is found in the graph of the loss of a batch, as the end of a sentence; None if nothing is."""
        for number, (node, is_direct) in enumerate(_nodes(loss)):
            reduction, target = saved(node, "reduction"), saved(node, "target")
            total_weight = saved(node, "total_weight")
            if reduction == _MEAN and target is not None and total_weight is not None:
                counted, num_targets = float(total_weight), target.numel()
                if counted != num_targets:
                    return f"divides by the targets that count, {counted:g} of {num_targets} in this batch"
            if is_direct and (reduction == _SUM or _sums_samples(node, num_samples)):
                return "is a sum over the batch"
            if not is_direct:
                continue
            place = type(node).__name__, number
            divisor = _divisor(node)
            if divisor is not None and self._is_count(place, divisor, num_samples):
                return "divides by a number that is in no fixed proportion to the samples"
            if (elements := _num_averaged(node)) is not None and self._varies(place, elements, num_samples):
                return "is a mean over elements whose number per sample varies"
        return None

    def _is_count(self, place: tuple[str, int], divisor: float, num_samples: int) -> bool:
        """Whether the divisors at this place seem to count something in the batch that is not its samples."""
        varies = self._varies(place, divisor, num_samples)
        return self._fluctuates(place, divisor / num_samples) and varies

    def _fluctuates(self, place: tuple[str, int], ratio: float) -> bool:
        """Whether the divisors at this place go up and down; a temperature that is annealed goes one way."""
        ratios = self._ratios.setdefault(place, [])
        ratios.append(ratio)
        changes = {later > earlier for earlier, later in pairwise(ratios) if later != earlier}
        return len(changes) > 1

    def _varies(self, place: tuple[str, int], divisor: float, num_samples: int) -> bool:
        """Whether the divisors at this place so far are neither constant nor proportional to the number of samples."""
        divisors = self._divisors.setdefault(place, set())
        divisors.add((divisor, num_samples))
        values = {value for value, _ in divisors}
        return len(values) > 1 and len({value / number for value, number in divisors}) > 1


def _divisor(node: Any) -> float | None:
    """What a node divides by, if that is a number that is not trained."""
    divisor = saved(node, "other") if type(node).__name__.startswith("Div") else None
    if divisor is None or divisor.numel() != 1 or divisor.requires_grad:
        return None
    return float(divisor)


def _num_averaged(node: Any) -> int | None:
    """How many elements a node averages; None if it is no mean over all of them."""
    if type(node).__name__ == "MeanBackward0":
        num_elements: int | None = saved(node, "self_sym_numel")
        return num_elements
    if saved(node, "reduction") != _MEAN:
        return None
    averaged = saved(node, "self" if saved(node, "total_weight") is None else "target")
    return None if averaged is None else int(averaged.numel())


def _sums_samples(node: Any, num_samples: int) -> bool:
    """Whether a node sums a tensor whose first dimension is that of the samples."""
    sizes = list(saved(node, "self_sym_sizes") or [])
    is_sum = type(node).__name__ == "SumBackward0" and num_samples > 1 and sizes[:1] == [num_samples]
    return is_sum and not any(_reduces_first(below) for below in _below(node))


def _below(node: Any) -> Iterator[Any]:
    """The nodes that a node's input was computed by, some steps deep."""
    level = [node]
    for _ in range(_DEPTH):
        level = [child for each in level for child, _ in each.next_functions if child is not None]
        yield from level


def _reduces_first(node: Any) -> bool:
    """Whether a node reduces the first dimension, so that what follows has no more samples, but classes perhaps."""
    sizes, dims = list(saved(node, "self_sym_sizes") or []), saved(node, "dim")
    if not type(node).__name__.startswith(("Sum", "Mean")) or not sizes or not isinstance(dims, tuple):
        return False
    return any(dim in (0, _UNSIGNED - len(sizes)) for dim in dims)


def _nodes(loss: torch.Tensor) -> Iterator[tuple[Any, bool]]:
    """The nodes next to the root, nearest first, and whether sums reach the loss unchanged."""
    level: list[tuple[Any, bool]] = [(loss.grad_fn, True)]
    seen: set[Any] = set()
    while level and len(seen) < _MAX_NODES:
        following: list[tuple[Any, bool]] = []
        for node, is_direct in level:
            if node is None or node in seen:
                continue
            seen.add(node)
            yield node, is_direct
            stays = is_direct and type(node).__name__.startswith(_UNCHANGED)
            following += [(child, stays) for child, _ in node.next_functions]
        level = following
