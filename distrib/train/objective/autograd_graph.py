"""What a loss depends on, read from autograd's graph."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

_MAX_NODES = 200_000


def parameters_beside(loss: torch.Tensor, known: Iterable[nn.Parameter]) -> list[nn.Parameter]:
    """The parameters that get a gradient from `loss` and are not among `known`; nothing is computed."""
    seen_parameters = {id(parameter) for parameter in known}
    found: list[nn.Parameter] = []
    stack: list[Any] = [loss.grad_fn]
    seen: set[Any] = set()
    while stack and len(seen) < _MAX_NODES:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if isinstance(leaf, nn.Parameter) and id(leaf) not in seen_parameters:
            seen_parameters.add(id(leaf))
            found.append(leaf)
        stack.extend(following for following, _ in node.next_functions)
    return found
