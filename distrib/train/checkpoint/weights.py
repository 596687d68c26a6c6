"""Weights as safetensors files."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_model, save_file, save_model
from torch import nn

from distrib.compat.messages import safetensors_error_number
from distrib.errors import DistribError
from distrib.runs.files.atomic import atomic_path

_MOST_NAMES = 20


class WeightsError(DistribError):
    """A weights file does not fit the model."""


def save_weights(model: nn.Module, path: Path) -> None:
    """Writes the state of the unwrapped `model`, tied weights once; the file appears complete or not at all."""
    _write(path, lambda temporary: save_model(model, temporary))


def copy_weights(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A model's tensors copied to the CPU, tied ones once, by their first name."""
    return {
        name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in without_duplicates(state).items()
    }


def without_duplicates(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A model's tensors, tied ones once, by their first name."""
    seen: dict[tuple[Any, ...], str] = {}
    unique: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        key = (tensor.data_ptr(), tuple(tensor.shape), tensor.storage_offset())
        if not tensor.numel() or seen.setdefault(key, name) == name:
            unique[name] = tensor
    return unique


def write_weights(weights: Mapping[str, torch.Tensor], path: Path) -> None:
    """Writes tensors of which none is tied to another; the file appears complete or not at all."""
    contiguous = {name: tensor.contiguous() for name, tensor in weights.items()}
    _write(path, lambda temporary: save_file(contiguous, temporary))


def load_weights(model: nn.Module, path: Path) -> None:
    """Loads a weights file into the unwrapped `model`.

    Raises:
        WeightsError: Names or shapes differ, which the message lists, or the file cannot be read.
    """
    try:
        problem = misfits(model, path)
    except WeightsError as error:
        raise WeightsError(f"model.weights: {error}") from None
    if problem is not None:
        raise WeightsError(f"model.weights: {path} does not fit the model: {problem}")
    load_model(model, str(path), strict=False)


def misfits(model: nn.Module, path: Path) -> str | None:
    """Which names or shapes in a weights file differ from those of the unwrapped `model`; None if all fit.

    Tied weights need only one of their names in the file. Values are not read, so the model may be on the meta device.

    Raises:
        WeightsError: The file cannot be read.
    """
    tensors = model.state_dict(keep_vars=True)
    try:
        with safe_open(str(path), framework="pt") as file:
            stored = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path} cannot be read: {error}") from None
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
