"""State other than large tensors, as JSON from which it is restored with the same types and bits."""

from __future__ import annotations

import base64
import io
import json
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy
import torch

from distrib.errors import DistribError

_KIND = "__kind__"


class StateError(DistribError):
    """State contains something that a checkpoint cannot hold."""


@dataclass(frozen=True)
class StoredTensor:
    """Stands for a tensor that is stored elsewhere under `name`."""

    name: str


@dataclass(frozen=True)
class FromJob:
    """Stands for a function or class that is not saved, since the job's code has it; `name` is for people."""

    name: str


def dump_state(state: Any) -> str:
    """JSON text of nested dicts (any plain keys), lists, tuples, sets, counters, tensors, arrays and plain values.

    Raises:
        StateError: It contains something else; the message says where.
    """
    return json.dumps(_encode(state, "state"))


def load_state(text: str) -> Any:
    """The state that was passed to `dump_state`."""
    return json.loads(text, object_hook=_decode)


def _encode(value: Any, path: str) -> Any:
    for kind, encode in _ENCODERS:
        if isinstance(value, kind):
            return encode(value, path)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    for name, of in _SEQUENCES.items():
        if type(value) is of:
            items = [_encode(item, f"{path}[{i}]") for i, item in enumerate(value)]
            longest = {} if getattr(value, "maxlen", None) is None else {"maxlen": value.maxlen}
            return {_KIND: name, "items": items, **longest}
    if isinstance(value, list):
        return [_encode(item, f"{path}[{i}]") for i, item in enumerate(value)]
    for name, of in _MAPPINGS.items():
        if type(value) is of:
            pairs = [[_encode(key, path), _encode(item, f"{path}.{key}")] for key, item in value.items()]
            return {_KIND: name, "pairs": pairs}
    raise StateError(
        f"{path} is a {type(value).__name__}, which a checkpoint cannot hold; keep tensors, NumPy arrays, numbers, "
        "text, or dicts, lists, tuples and sets of these"
    )


def _encode_tensor(value: torch.Tensor, path: str) -> dict[str, Any]:
    dtype = str(value.dtype).removeprefix("torch.")
    return {_KIND: "tensor", "dtype": dtype, "shape": list(value.shape), "value": value.tolist()}


def _encode_numpy(value: numpy.ndarray[Any, Any] | numpy.generic, path: str) -> dict[str, Any]:
    if value.dtype.kind not in "biufc":
        raise StateError(f"{path} is a NumPy array of type {value.dtype}, which a checkpoint cannot hold; keep numbers")
    kind = "numpy" if isinstance(value, numpy.ndarray) else "numpy_scalar"
    data = base64.b64encode(numpy.ascontiguousarray(value).tobytes()).decode()
    return {_KIND: kind, "dtype": value.dtype.str, "shape": list(value.shape), "value": data}


def _encode_bytes(value: Any, path: str) -> dict[str, Any]:
    data = value.getvalue() if isinstance(value, io.BytesIO) else bytes(value)
    return {_KIND: type(value).__name__, "value": base64.b64encode(data).decode()}


_ENCODERS: tuple[tuple[Any, Callable[[Any, str], dict[str, Any]]], ...] = (
    (torch.Tensor, _encode_tensor),
    (numpy.ndarray | numpy.generic, _encode_numpy),
    (bytes | bytearray | io.BytesIO, _encode_bytes),
    (StoredTensor, lambda value, _: {_KIND: "stored", "name": value.name}),
    (FromJob, lambda value, _: {_KIND: "from_job", "name": value.name}),
)


def _decode(value: dict[str, Any]) -> Any:
    decode = _DECODERS.get(value.get(_KIND, ""))
    return value if decode is None else decode(value)


def _decode_tensor(value: dict[str, Any]) -> torch.Tensor:
    return torch.tensor(value["value"], dtype=getattr(torch, value["dtype"])).reshape(value["shape"])


def _decode_numpy(value: dict[str, Any]) -> Any:
    flat = numpy.frombuffer(base64.b64decode(value["value"]), dtype=numpy.dtype(value["dtype"]))
    array = flat.reshape(value["shape"]).copy()
    return array if value[_KIND] == "numpy" else array[()]


def _key(key: Any) -> Any:
    return tuple(key) if isinstance(key, list) else key


_SEQUENCES: dict[str, Any] = {"tuple": tuple, "set": set, "deque": deque}
_MAPPINGS: dict[str, Any] = {"dict": dict, "counter": Counter, "ordered": OrderedDict}
_BYTES: dict[str, Any] = {"bytes": bytes, "bytearray": bytearray, "BytesIO": io.BytesIO}
_CONTAINERS = {**_SEQUENCES, **_MAPPINGS, **_BYTES}


def _decode_container(value: dict[str, Any]) -> Any:
    of = _CONTAINERS[value[_KIND]]
    if "maxlen" in value:
        return deque(value["items"], value["maxlen"])
    if "pairs" in value:
        return of({_key(key): item for key, item in value["pairs"]})
    return of(value["items"]) if "items" in value else of(base64.b64decode(value["value"]))


_DECODERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "tensor": _decode_tensor,
    "numpy": _decode_numpy,
    "numpy_scalar": _decode_numpy,
    "stored": lambda value: StoredTensor(value["name"]),
    "from_job": lambda value: FromJob(value["name"]),
    **dict.fromkeys(_CONTAINERS, _decode_container),
}
