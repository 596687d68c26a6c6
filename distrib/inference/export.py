"""Exports a trained model to a file and checks that it gives the same outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from distrib.inference.exported_program import TRACED_ROWS, check_program, write_program
from distrib.inference.model_outputs import call, largest_difference
from distrib.inference.new_file import folder_beside
from distrib.inference.trained_model import TrainedModel
from distrib.runs.files.atomic import move_into_place

if TYPE_CHECKING:
    from torch import nn

Format = Literal["safetensors", "torch-export"]
SUFFIXES: dict[Format, str] = {"safetensors": ".safetensors", "torch-export": ".pt2"}
_CHECKED_BATCHES = (TRACED_ROWS, 1, 2, 8)
"""Batch sizes for comparing an exported file with the model."""


@dataclass(frozen=True)
class Exported:
    """The result of an export.

    Attributes:
        out: The file.
        num_bytes: Its size.
        largest_difference: The largest absolute difference between its outputs and the model's.
        checked_batches: The batch sizes of the comparison.
        notices: What the user should know.
    """

    out: Path
    num_bytes: int
    largest_difference: float
    checked_batches: tuple[int, ...]
    notices: tuple[str, ...]


def export(trained: TrainedModel, file_format: Format, out: Path) -> Exported:
    """Writes the model to `out` atomically, after comparing its outputs with the model's.

    Args:
        trained: The model.
        file_format: `safetensors` for the weights, `torch-export` for a standalone program.
        out: The file.

    Raises:
        InferenceError: The model cannot be exported, or the exported file gives other outputs.
    """
    from distrib.inference.signature import InputSignature

    model = trained.build()
    signature = InputSignature.of(trained.signature)
    examples = {rows: signature.tensors_of_example(rows) for rows in _CHECKED_BATCHES}
    with folder_beside(out) as folder:
        temporary = folder / out.name
        if file_format == "safetensors":
            notices = _write_weights(model, temporary)
            difference = _check_weights(trained, model, temporary, examples, signature.is_named)
        else:
            notices, examples = write_program(trained, model, temporary, examples, signature.is_named)
            difference = check_program(trained, model, temporary, examples, signature.is_named)
        num_bytes = temporary.stat().st_size
        move_into_place(temporary, out)
    return Exported(out, num_bytes, difference, tuple(sorted(examples)), tuple(notices))


def _write_weights(model: nn.Module, path: Path) -> list[str]:
    from distrib.train.checkpoint.weights import save_weights

    save_weights(model, path)
    return []


def _check_weights(
    trained: TrainedModel, model: nn.Module, path: Path, examples: Mapping[int, Any], is_named: bool
) -> float:
    """Loads the file into a newly built model and compares the outputs."""
    import torch

    from distrib.job.target import resolve
    from distrib.train.checkpoint.weights import load_weights
    from distrib.train.objective.task import build_model

    fresh = build_model(trained.job.spec, resolve(trained.job, "model", trained.job.spec.model)).eval()
    with torch.no_grad():
        for parameter in fresh.parameters():
            parameter.zero_()
    load_weights(fresh, path, makes_buffers=True)
    differences = [
        largest_difference(call(model, tensors, is_named), call(fresh, tensors, is_named), rows, is_exact=True)
        for rows, tensors in examples.items()
    ]
    return max(differences)
