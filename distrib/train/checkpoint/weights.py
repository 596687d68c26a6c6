"""Weights as safetensors files."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from distrib.compat.messages import safetensors_error_number
from distrib.compat.pytorch.compile import own_names
from distrib.errors import DistribError
from distrib.runs.files.atomic import atomic_path
from distrib.train.checkpoint.buffers import make_buffer
from distrib.train.checkpoint.extra_state import extra_states, set_extra_states
from distrib.train.checkpoint.plain_state import dump_state, load_state

_MOST_NAMES = 20
_EXTRA = "distrib.extra_state"
"""In the metadata of a weights file: the extra state of modules by name, as JSON."""


class WeightsError(DistribError):
    """A weights file does not fit the model."""


def save_weights(model: nn.Module, path: Path) -> None:
    """Writes the state of the unwrapped `model`; see `write_weights`."""
    write_weights(tensors_of(model.state_dict()), path, extra_states(model))


def tensors_of(state: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The tensors in a model's state."""
    return {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}


def copy_weights(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A model's tensors copied to the CPU; tied ones share a copy."""
    copies: dict[tuple[Any, ...], torch.Tensor] = {}
    copied: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        key = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype) if tensor.numel() else (name,)
        if key not in copies:
            copies[key] = tensor.detach().to("cpu", copy=True).contiguous()
        copied[name] = copies[key]
    return copied


def write_weights(tensors: Mapping[str, torch.Tensor], path: Path, extra: Mapping[str, Any] | None = None) -> None:
    """Writes a model's tensors; the file appears complete or not at all.

    Extra state, as `extra_states` returns it, goes into the file's metadata as JSON.

    The names are those of the model if nothing in it is compiled. Each tensor is complete under each of its names, so
    that `model.load_state_dict(safetensors.torch.load_file(path))` works for tied weights and overlapping buffers too.
    """
    names = own_names(tensors)
    seen: set[int] = set()
    separate: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        whole = tensor.detach().contiguous()
        memory = whole.untyped_storage().data_ptr()
        separate[names[name]] = whole.clone() if memory in seen else whole  # safetensors refuses shared memory
        seen.add(memory)
    metadata = {_EXTRA: dump_state(dict(extra))} if extra else None
    _write(path, lambda temporary: save_file(separate, temporary, metadata=metadata))


def load_weights(model: nn.Module, path: Path, *, makes_buffers: bool = False) -> None:
    """Loads a weights file into the unwrapped `model`.

    Args:
        model: The model.
        path: The file.
        makes_buffers: Whether the model's own code wrote the file, so that what a fresh model lacks are buffers that
            its forward pass makes or grows.

    Raises:
        WeightsError: Names or shapes differ, which the message lists, or the file cannot be read.
    """
    try:
        if makes_buffers:
            _make_buffers(model, path)
        problem = misfits(model, path)
    except WeightsError as error:
        raise WeightsError(f"model.weights: {error}") from None
    if problem is not None:
        raise WeightsError(f"model.weights: {path} does not fit the model: {problem}")
    stored = load_file(str(path))
    file_names = {own: name for name, own in own_names(stored).items()}
    own = tensors_of(model.state_dict())
    values = {name: stored[file_names[short]] for name, short in own_names(own).items() if short in file_names}
    model.load_state_dict(values, strict=False)
    with safe_open(str(path), framework="pt") as file:
        extra = (file.metadata() or {}).get(_EXTRA)
    if extra is not None:
        set_extra_states(model, load_state(extra))


def _make_buffers(model: nn.Module, path: Path) -> None:
    """Makes the buffers that a file has and the model lacks, or has in another shape."""
    stored = _read(path)
    own = {name: tensor.shape for name, tensor in tensors_of(model.state_dict(keep_vars=True)).items()}
    shapes = {short: own[name] for name, short in own_names(own).items()}
    for name, short in own_names(stored).items():
        if shapes.get(short) != stored[name].shape:
            make_buffer(model, short, stored[name].shape, stored[name].dtype)


def _read(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file.

    Raises:
        WeightsError: It cannot be read.
    """
    try:
        return load_file(str(path))
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path} cannot be read: {error}") from None


def misfits(model: nn.Module, path: Path) -> str | None:
    """Which names or shapes in a weights file differ from those of the unwrapped `model`; None if all fit.

    Tied weights need only one of their names in the file. Values are not read, so the model may be on the meta device.

    Raises:
        WeightsError: The file cannot be read.
    """
    state = tensors_of(model.state_dict(keep_vars=True))
    tensors = {own: state[name] for name, own in own_names(state).items()}
    try:
        with safe_open(str(path), framework="pt") as file:
            stored = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path} cannot be read: {error}") from None
    stored = {own: stored[name] for name, own in own_names(stored).items()}
    shapes = {
        name: f"{stored[name]} in the file, {tuple(tensors[name].shape)} in the model"
        for name in tensors.keys() & stored.keys()
        if tuple(tensors[name].shape) != stored[name]
    }
    tied_to_stored = {id(tensors[name]) for name in tensors.keys() & stored.keys()}
    missing = [name for name, tensor in tensors.items() if id(tensor) not in tied_to_stored]
    found = [
        _listed("shapes that differ", [f"{name}: {shape}" for name, shape in sorted(shapes.items())], "; "),
        _listed("missing in the file", sorted(missing), ", "),
        _listed("unknown to the model", sorted(stored.keys() - tensors.keys()), ", "),
    ]
    return "; ".join(filter(None, found)) or None


def _listed(title: str, items: list[str], separator: str) -> str:
    more = len(items) - _MOST_NAMES
    shown = separator.join(items[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
    return f"{title}: {shown}" if items else ""


def _write(path: Path, write: Callable[[str], None]) -> None:
    try:
        with atomic_path(path) as temporary:
            write(str(temporary))
    except SafetensorError as error:
        number = safetensors_error_number(str(error))
        if number is None:
            raise
        raise OSError(number, os.strerror(number)) from error
