"""Nested state taken apart into named tensors and the rest, and put together again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch

from distrib.train.checkpoint.plain_state import StoredTensor

Tensors = dict[str, torch.Tensor]


def split_tensors(state: Any, *, keeps_small: bool = True) -> tuple[Any, Tensors]:
    """`state` with its tensors replaced by `StoredTensor`s, and those tensors by name.

    Args:
        state: Dicts, lists and tuples in it are searched; a tensor's name is its path, such as `state/0/exp_avg`.
        keeps_small: Whether tensors of at most one element, such as an optimizer's step counts, stay in the state.
    """
    tensors: Tensors = {}

    def split(value: Any, path: str) -> Any:
        if isinstance(value, torch.Tensor) and not (keeps_small and value.numel() <= 1):
            name = path if path not in tensors else f"{path}#{len(tensors)}"
            tensors[name] = value.detach()
            return StoredTensor(name)
        below = f"{path}/" if path else ""
        if type(value) in (dict, OrderedDict):
            return type(value)((key, split(item, f"{below}{key}")) for key, item in value.items())
        if type(value) in (list, tuple):
            return type(value)(split(item, f"{below}{number}") for number, item in enumerate(value))
        return value

    return split(state, ""), tensors


def join_tensors(plain: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    """What `split_tensors` was given, from what it returned."""
    if isinstance(plain, StoredTensor):
        return tensors[plain.name]
    if type(plain) in (dict, OrderedDict):
        return type(plain)((key, join_tensors(item, tensors)) for key, item in plain.items())
    if type(plain) in (list, tuple):
        return type(plain)(join_tensors(item, tensors) for item in plain)
    return plain
