"""Many tensors at once: one kernel for all of them, and all that a nest of containers holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from distrib.compat.symbols import TORCH_VERSIONS, PrivateSymbol

SYMBOLS = (
    PrivateSymbol(
        "torch._foreach_mul_",
        "multiplies all gradients by one factor in one kernel; public torch has only a call per tensor",
        TORCH_VERSIONS,
        "a call per tensor",
    ),
    PrivateSymbol(
        "torch.utils._pytree.tree_leaves",
        "a model's outputs in the order in which torch.export numbers them, containers that users register included",
        TORCH_VERSIONS,
        "tuples, lists and dicts are walked here; other containers count as no tensors",
    ),
)


def multiply_(tensors: Sequence[torch.Tensor], factor: torch.Tensor) -> None:
    """Multiplies each tensor in place by `factor`, a scalar tensor on their device."""
    if hasattr(torch, "_foreach_mul_"):
        for dtype in {tensor.dtype for tensor in tensors}:
            torch._foreach_mul_([tensor for tensor in tensors if tensor.dtype == dtype], factor.to(dtype))
        return
    for tensor in tensors:
        tensor.mul_(factor.to(tensor.dtype))


def tensors_in(nested: Any) -> list[torch.Tensor]:
    """The tensors in nested containers, in order."""
    try:
        from torch.utils._pytree import tree_leaves
    except ImportError:
        return list(_walk(nested))
    return [leaf for leaf in tree_leaves(nested) if isinstance(leaf, torch.Tensor)]


def _walk(nested: Any) -> Iterator[torch.Tensor]:
    if isinstance(nested, torch.Tensor):
        yield nested
    elif isinstance(nested, Mapping):
        for value in nested.values():
            yield from _walk(value)
    elif isinstance(nested, tuple | list):
        for value in nested:
            yield from _walk(value)
