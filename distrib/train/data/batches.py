"""Batches as nested tensors: moving, pinning and describing them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch


def map_tensors(batch: Any, function: Callable[[torch.Tensor], Any]) -> Any:
    """`batch` with `function` applied to each tensor in its tuples, lists, mappings and dataclasses, nested."""
    if isinstance(batch, torch.Tensor):
        return function(batch)
    if isinstance(batch, Mapping):
        return {key: map_tensors(value, function) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(map_tensors(value, function) for value in batch))
    if isinstance(batch, list | tuple):
        return type(batch)(map_tensors(value, function) for value in batch)
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        changed = {
            field.name: map_tensors(getattr(batch, field.name), function)
            for field in dataclasses.fields(batch)
            if field.init
        }
        return dataclasses.replace(batch, **changed)
    return batch


def describe(batch: Any) -> Any:
    """The signature of a batch as plain data: `{"shape": [null, 64], "dtype": "float32"}` for each tensor.

    The first dimension, the batch, is null. What is no tensor is given by the name of its type.
    """
    if isinstance(batch, torch.Tensor):
        shape = [None, *batch.shape[1:]] if batch.ndim else []
        return {"shape": shape, "dtype": str(batch.dtype).removeprefix("torch.")}
    if isinstance(batch, Mapping):
        return {str(key): describe(value) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return {name: describe(getattr(batch, name)) for name in batch._fields}
    if isinstance(batch, list | tuple):
        return [describe(value) for value in batch]
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        return {field.name: describe(getattr(batch, field.name)) for field in dataclasses.fields(batch)}
    return type(batch).__name__
