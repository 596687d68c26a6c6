"""Weights as safetensors files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_model, save_file, save_model
from torch import nn

from distrib.errors import DistribError


class WeightsError(DistribError):
    """A file of weights does not fit the model."""


def save_weights(model: nn.Module, path: Path) -> None:
    """Writes the state of the unwrapped `model`, tied weights once; the file appears whole or not at all."""
    _write_whole(path, lambda temporary: save_model(model, temporary))


def copy_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """The state of the unwrapped `model` as tensors of its own on CPU, tied weights once, by their first name."""
    seen: dict[tuple[int, tuple[int, ...], int], str] = {}
    copied: dict[str, torch.Tensor] = {}
    for name, tensor in model.state_dict().items():
        key = (tensor.data_ptr(), tuple(tensor.shape), tensor.storage_offset())
        if tensor.numel() and seen.setdefault(key, name) != name:
            continue
        copied[name] = tensor.detach().to("cpu", copy=True).contiguous()
    return copied


def write_weights(weights: dict[str, torch.Tensor], path: Path) -> None:
    """Writes what `copy_weights` has copied; the file appears whole or not at all."""
    _write_whole(path, lambda temporary: save_file(weights, temporary))


def load_weights(model: nn.Module, path: Path) -> None:
    """Loads a file of weights into the unwrapped `model`.

    Raises:
        WeightsError: Names or shapes differ, which the message lists, or the file cannot be read.
    """
    own = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    try:
        with safe_open(str(path), framework="pt") as file:
            stored = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"model.weights: {path} cannot be read: {error}") from None
    shapes = [f"{name}: {stored[name]} in the file, {own[name]} in the model" for name in own.keys() & stored.keys()
              if own[name] != stored[name]]  # fmt: skip
    problems = [f"shapes that differ: {'; '.join(sorted(shapes))}"] if shapes else []
    if not shapes:
        missing, unexpected = load_model(model, str(path), strict=False)
        problems += [f"missing in the file: {', '.join(sorted(missing))}"] if missing else []
        problems += [f"unknown to the model: {', '.join(sorted(unexpected))}"] if unexpected else []
    if problems:
        raise WeightsError(f"model.weights: {path} does not fit the model: {'; '.join(problems)}")


def _write_whole(path: Path, write: Callable[[str], None]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(str(temporary))
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
