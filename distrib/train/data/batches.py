"""Batches as nested tensors: moving, pinning and describing them. Containers keep their type."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

_Function = Callable[[torch.Tensor], Any]


def map_tensors(batch: Any, function: _Function) -> Any:
    """`batch` with `function` applied to each tensor in its tuples, lists, mappings and dataclasses, nested.

    A container whose tensors `function` returns as they are is returned itself; otherwise it is copied, so that its
    class, and what else it holds, is kept.
    """
    return _map(batch, function, lambda _: None)


def to_device(batch: Any, device: torch.device) -> Any:
    """`batch` on `device`; an object with a `to` of its own, such as a tokenizer's encoding, moves itself."""

    def move(holder: Any) -> Any:
        own = _method(holder, "to")
        return None if own is None else own(device)

    return _map(batch, lambda tensor: tensor.to(device, non_blocking=True), move)


def pin_memory(batch: Any) -> Any:
    """`batch` in pinned memory, from which a copy to a GPU need not be waited for."""

    def pin(holder: Any) -> Any:
        own = _method(holder, "pin_memory")
        return None if own is None else own()

    return _map(batch, torch.Tensor.pin_memory, pin)


def tensors_in(batch: Any) -> Iterator[torch.Tensor]:
    """The tensors that `map_tensors` would map, and those among the attributes of other objects."""
    return _tensors_in(batch, set())


def _tensors_in(holder: Any, seen: set[int]) -> Iterator[torch.Tensor]:
    if isinstance(holder, torch.Tensor):
        yield holder
        return
    if id(holder) in seen:
        return
    seen.add(id(holder))
    if isinstance(holder, Mapping):
        held: Any = holder.values()
    elif isinstance(holder, list | tuple):
        held = holder
    elif hasattr(holder, "__dict__") and not isinstance(holder, type) and not callable(holder):
        held = vars(holder).values()
    else:
        return
    for value in list(held):
        yield from _tensors_in(value, seen)


def _method(holder: Any, name: str) -> Callable[..., Any] | None:
    """A method of the holder's class; None for plain containers, and for attributes made up by `__getattr__`."""
    if type(holder) in (dict, list, tuple) or isinstance(holder, type):
        return None
    return getattr(holder, name) if callable(getattr(type(holder), name, None)) else None


def _map(batch: Any, function: _Function, convert: Callable[[Any], Any]) -> Any:
    """`map_tensors`, but for objects that `convert` gives another one for."""
    if isinstance(batch, torch.Tensor):
        return function(batch)
    converted = convert(batch)
    if converted is not None:
        return converted
    parts = parts_of(batch)
    if parts is None:
        return batch
    changed = {key: _map(value, function, convert) for key, value in parts.items()}
    return batch if all(changed[key] is value for key, value in parts.items()) else _with_parts(batch, changed)


def parts_of(batch: Any) -> dict[Any, Any] | None:
    """What a container holds, by key, number or field; None for what is no container."""
    if isinstance(batch, Mapping):
        return {key: batch[key] for key in batch}
    if isinstance(batch, list | tuple):
        return dict(enumerate(batch))
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        return {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)}
    return None


def _with_parts(batch: Any, parts: dict[Any, Any]) -> Any:
    """A copy of a container with other parts."""
    if type(batch) in (dict, list, tuple):
        return parts if isinstance(batch, dict) else type(batch)(parts.values())
    if isinstance(batch, tuple):
        return type(batch)(*parts.values()) if hasattr(batch, "_fields") else type(batch)(parts.values())
    changed = copy.copy(batch)
    if dataclasses.is_dataclass(batch):
        for name, value in parts.items():
            object.__setattr__(changed, name, value)  # which works on a frozen one, and runs no `__post_init__` again
    else:
        for key, value in parts.items():
            changed[key] = value
    return changed


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
