"""A training's state as named tensors and plain values: what a checkpoint holds, and how it is taken up again."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

Tensors = dict[str, torch.Tensor]


def model_tensors(model: nn.Module) -> tuple[Tensors, Tensors]:
    """(parameters, buffers) of the unwrapped model by name; tied weights once."""
    parameters = {f"model/{name}": parameter.detach() for name, parameter in model.named_parameters()}
    persistent = set(model.state_dict(keep_vars=True))
    buffers = {
        f"model/{name}": buffer.detach() for name, buffer in model.named_buffers() if name in persistent
    }  # fmt: skip
    return parameters, buffers


def split_optimizer(optimizer: torch.optim.Optimizer) -> tuple[Tensors, dict[str, Any]]:
    """The optimizer's state tensors by name, and all else of it as plain values."""
    state = optimizer.state_dict()
    tensors: Tensors = {}
    plain: dict[int, dict[str, Any]] = {}
    for index, values in state["state"].items():
        plain[index] = {}
        for name, value in values.items():
            if isinstance(value, torch.Tensor) and value.numel() > 1:
                tensors[f"optimizer/{index}/{name}"] = value.detach()
            else:
                plain[index][name] = value
    return tensors, {"state": plain, "param_groups": state["param_groups"]}


def join_optimizer(optimizer: torch.optim.Optimizer, tensors: Tensors, plain: dict[str, Any]) -> None:
    """Gives `optimizer` the state that `split_optimizer` took, in its own types: loading alone would convert them."""
    state: dict[int, dict[str, Any]] = {index: dict(values) for index, values in plain["state"].items()}
    for name, tensor in tensors.items():
        _, number, key = name.split("/", 2)
        state.setdefault(int(number), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": plain["param_groups"]})
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, values in state.items():
        kept = optimizer.state[parameters[index]]
        for key, value in values.items():
            if isinstance(value, torch.Tensor) and kept[key].dtype != value.dtype:
                kept[key] = value.to(kept[key].device)


def share_of(tensors: Tensors, buffers: Tensors, rank: int, world_size: int) -> Tensors:
    """A rank's part of replicated tensors: whole tensors, about as many bytes for each rank; buffers are rank 0's.

    The largest tensor goes to the rank with the least so far, the same on every rank.
    """
    loads = [0] * world_size
    loads[0] = sum(buffer.nbytes for buffer in buffers.values())
    mine: Tensors = dict(buffers) if rank == 0 else {}
    for name, tensor in sorted(tensors.items(), key=lambda item: (-item[1].nbytes, item[0])):
        owner = loads.index(min(loads))
        loads[owner] += tensor.nbytes
        if owner == rank:
            mine[name] = tensor
    return mine
