"""Buffers that a model's forward pass makes or grows, so that a fresh model lacks them or has them in another shape."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class BufferForm:
    """What a process must know of another one's buffer to receive it.

    Attributes:
        name: In the model.
        shape: Its shape.
        dtype: Its type.
        is_persistent: Whether it is part of the model's state, rather than computed again by any process that needs it.
    """

    name: str
    shape: torch.Size
    dtype: torch.dtype
    is_persistent: bool

    def fits(self, buffer: torch.Tensor | None) -> bool:
        """Whether `buffer` can take the values."""
        return buffer is not None and (buffer.shape, buffer.dtype) == (self.shape, self.dtype)


def buffer_forms(model: nn.Module) -> list[BufferForm]:
    """The form of each buffer, in the model's order."""
    persistent = set(model.state_dict(keep_vars=True))
    return [BufferForm(name, buffer.shape, buffer.dtype, name in persistent) for name, buffer in model.named_buffers()]


def put_buffer(model: nn.Module, name: str, tensor: torch.Tensor) -> bool:
    """Makes `tensor` a persistent buffer, in place of one of that name or as a new one.

    Args:
        model: The model.
        name: The buffer's name in it.
        tensor: The buffer.

    Returns:
        False if the model has no such module, or something else of that name, such as a parameter.
    """
    path, _, leaf = name.rpartition(".")
    try:
        model.get_submodule(path).register_buffer(leaf, tensor)
    except (AttributeError, KeyError):
        return False
    return True


def make_buffer(model: nn.Module, name: str, shape: torch.Size, dtype: torch.dtype) -> torch.Tensor | None:
    """An empty tensor that has become a persistent buffer on the model's device; None if `put_buffer` cannot do it."""
    like = next(iter([*model.parameters(), *model.buffers()]), torch.empty(0))
    made = torch.empty(shape, dtype=dtype, device=like.device)
    return made if put_buffer(model, name, made) else None
