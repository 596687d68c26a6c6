"""What the nodes of autograd's graph have saved for the backward pass."""

from __future__ import annotations

from typing import Any

from distrib.compat.symbols import TORCH_VERSIONS, PrivateSymbol

SYMBOLS = (
    PrivateSymbol(
        "torch.autograd.graph.Node._saved_reduction, _saved_total_weight, _saved_target, _saved_other, _saved_self, "
        "_saved_self_sym_sizes, _saved_self_sym_numel",
        "what a loss divides by, without evaluating it again; public hooks see saved tensors only while they are saved",
        TORCH_VERSIONS,
        "a loss that is not the mean over its samples is not reported",
    ),
)


def saved(node: Any, name: str) -> Any:
    """What a node has saved under this name, such as `target`; None if it has not."""
    return getattr(node, f"_saved_{name}", None)
