"""Final weights as a safetensors file."""

from __future__ import annotations

import os
from pathlib import Path

from safetensors.torch import save_model
from torch import nn


def save_weights(model: nn.Module, path: Path) -> None:
    """Writes the state of the unwrapped `model`, tied weights once; the file appears whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_model(model, str(temporary))
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
