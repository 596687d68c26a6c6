"""What strategies have in common that keep the whole model on every rank."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from distrib.errors import TrainingFailedError
from distrib.job.plan import Memory
from distrib.train.strategy.base import Tensors


def clip(parameters: Iterable[torch.Tensor], max_norm: float) -> torch.Tensor:
    """Clips gradients that are whole and equal on every rank; see `Strategy.clip`."""
    clipped = list(parameters)
    try:
        return torch.nn.utils.clip_grad_norm_(clipped, max_norm)
    except NotImplementedError as error:
        if not any(each.grad is not None and each.grad.layout != torch.strided for each in clipped):
            raise
        raise TrainingFailedError(
            "train.clip_norm: torch cannot clip sparse gradients, such as those of nn.Embedding(sparse=True); leave "
            "clip_norm out, or make the gradients dense"
        ) from error


def allocate(shape: torch.Size, dtype: torch.dtype, like: torch.Tensor | None) -> torch.Tensor:
    """An empty tensor on the CPU, with the memory format of `like` if the shapes are equal; see `Strategy.allocate`."""
    if like is not None and like.shape == shape:
        return torch.empty_like(like, dtype=dtype, device="cpu", requires_grad=False)
    return torch.empty(shape, dtype=dtype)


def full_weights(model: nn.Module) -> Tensors:
    """The model's own tensors by name, tied ones under each name."""
    return {name: value for name, value in model.state_dict().items() if isinstance(value, torch.Tensor)}


def memory(whole: Memory) -> Memory:
    """Every rank needs as much as a single one."""
    return whole


def share_of(tensors: Tensors, rank: int, world_size: int) -> Tensors:
    """A rank's part of tensors that all ranks have: whole tensors, about as many bytes for each rank.

    The largest tensor goes to the rank that has the fewest bytes so far, the same on every rank.
    """
    loads = [0] * world_size
    mine: Tensors = {}
    for name, tensor in sorted(tensors.items(), key=lambda item: (-item[1].nbytes, item[0])):
        owner = loads.index(min(loads))
        loads[owner] += tensor.nbytes
        if owner == rank:
            mine[name] = tensor
    return mine
