"""What the nodes of autograd's graph have saved for the backward pass."""

from __future__ import annotations

from typing import Any

from distrib.compat.symbols import TORCH_VERSIONS, PrivateSymbol

SYMBOLS = (
    PrivateSymbol(
        "torch.autograd.graph.Node._saved_reduction, _saved_total_weight, _saved_target, _saved_other, _saved_self, "
        "_saved_self_sym_sizes, _saved_self_sym_numel, _saved_dim, _raw_saved_target and the like, their unpack_hook",
        "what a loss divides by, without evaluating it again; public hooks see saved tensors only while they are saved",
        TORCH_VERSIONS,
        "a loss that is not the mean over its samples is not reported",
    ),
)


def saved(node: Any, name: str) -> Any:
    """What a node has saved under this name, such as `target`; None if it has not.

    Nor is a tensor that hooks have packed returned: to unpack it, activation checkpointing would run the forward pass
    again, and the backward pass could not unpack it a second time.
    """
    if getattr(getattr(node, f"_raw_saved_{name}", None), "unpack_hook", None) is not None:
        return None
    return getattr(node, f"_saved_{name}", None)
