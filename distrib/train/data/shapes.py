"""Shapes and types of nested tensors, in a line for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

_MAX_ITEMS = 8


def shapes_of(value: Any) -> str:
    """Shapes and types of nested tensors: `(float32[32, 64], int64[32])`; the first ones of a long list."""
    if isinstance(value, torch.Tensor):
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {shapes_of(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        more = ["…"] if len(value) > _MAX_ITEMS else []
        return "(" + ", ".join([*map(shapes_of, value[:_MAX_ITEMS]), *more]) + ")"
    return type(value).__name__
