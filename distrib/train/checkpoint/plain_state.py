"""State other than large tensors, as JSON from which it is restored with the same types and bits."""

from __future__ import annotations

import json
from collections import Counter, OrderedDict, deque
from dataclasses import dataclass
from typing import Any

import torch

_KIND = "__kind__"


@dataclass(frozen=True)
class StoredTensor:
    """Stands for a tensor that is stored elsewhere under `name`."""

    name: str


def dump_state(state: Any) -> str:
    """JSON text of nested dicts (any plain keys), lists, tuples, sets, counters, tensors and plain values.

    Raises:
        TypeError: It contains something else; the message says where.
    """
    return json.dumps(_encode(state, "state"))


def load_state(text: str) -> Any:
    """The state that was passed to `dump_state`."""
    return json.loads(text, object_hook=_decode)


def _encode(value: Any, path: str) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, StoredTensor):
        return {_KIND: "stored", "name": value.name}
    if isinstance(value, torch.Tensor):
        dtype = str(value.dtype).removeprefix("torch.")
        return {_KIND: "tensor", "dtype": dtype, "shape": list(value.shape), "value": value.tolist()}
    for kind, of in _SEQUENCES.items():
        if type(value) is of:
            return {_KIND: kind, "items": [_encode(item, f"{path}[{i}]") for i, item in enumerate(value)]}
    if isinstance(value, list):
        return [_encode(item, f"{path}[{i}]") for i, item in enumerate(value)]
    for kind, of in _MAPPINGS.items():
        if type(value) is of:
            pairs = [[_encode(key, path), _encode(item, f"{path}.{key}")] for key, item in value.items()]
            return {_KIND: kind, "pairs": pairs}
    raise TypeError(f"{path} is a {type(value).__name__}, which a checkpoint cannot hold")


_SEQUENCES: dict[str, Any] = {"tuple": tuple, "set": set, "deque": deque}
_MAPPINGS: dict[str, Any] = {"dict": dict, "counter": Counter, "ordered": OrderedDict}


def _decode(value: dict[str, Any]) -> Any:
    kind = value.get(_KIND)
    if kind == "tensor":
        return torch.tensor(value["value"], dtype=getattr(torch, value["dtype"])).reshape(value["shape"])
    if kind == "stored":
        return StoredTensor(value["name"])
    if kind in _SEQUENCES:
        return _SEQUENCES[kind](value["items"])
    if kind in _MAPPINGS:
        return _MAPPINGS[kind]({_key(key): item for key, item in value["pairs"]})
    return value


def _key(key: Any) -> Any:
    return tuple(key) if isinstance(key, list) else key
