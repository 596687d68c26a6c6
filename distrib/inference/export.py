"""Exports a trained model to a file and checks that it gives the same outputs."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from distrib.errors import InferenceError
from distrib.inference.new_file import folder_beside
from distrib.inference.trained_model import TrainedModel
from distrib.runs.files.atomic import move_into_place

if TYPE_CHECKING:
    import torch
    from torch import nn

Format = Literal["safetensors", "torch-export"]
SUFFIXES: dict[Format, str] = {"safetensors": ".safetensors", "torch-export": ".pt2"}
_CHECKED_BATCHES = (3, 1, 2, 8)
"""Batch sizes for comparing an exported program with the model; the first is used for tracing."""
_CHECK_TIMEOUT_SECONDS = 300

_RUN_PROGRAM = """
import sys
folder, program, *refused = sys.argv[1:]

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in refused:
            raise ImportError(f"the exported program needs the module {name}")

sys.meta_path.insert(0, Refuse())
import pathlib, torch
from safetensors.torch import load_file, save_file
module = torch.export.load(program).module()
for file in sorted(pathlib.Path(folder).glob("inputs-*.safetensors")):
    inputs = load_file(file)
    with torch.no_grad():
        outputs = module(inputs["inputs"]) if "--positional" in refused else module(**inputs)
    leaves = [leaf for leaf in torch.utils._pytree.tree_leaves(outputs) if isinstance(leaf, torch.Tensor)]
    save_file({str(i): leaf.contiguous() for i, leaf in enumerate(leaves)}, file.with_name(f"outputs-{file.name}"))
"""
"""Loads and runs an exported program in a separate interpreter in which the job's modules cannot be imported."""


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
            notices, examples = _write_program(trained, model, temporary, examples, signature.is_named)
            difference = _check_program(trained, model, temporary, examples, signature.is_named)
        num_bytes = temporary.stat().st_size
        move_into_place(temporary, out)
    return Exported(out, num_bytes, difference, tuple(sorted(examples)), tuple(notices))


def _call(model: nn.Module, tensors: Mapping[str, torch.Tensor], is_named: bool) -> list[torch.Tensor]:
    """The tensors that a model returns, in order."""
    import torch

    from distrib.compat.torch_tensors import tensors_in

    try:
        with torch.no_grad():
            outputs = model(**tensors) if is_named else model(*tensors.values())
    except Exception as error:
        raise InferenceError(
            f"the model fails on synthetic inputs with the signature in run.json: {type(error).__name__}: {error}"
        ) from error
    return tensors_in(outputs)


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
    from distrib.train.task import build_model

    fresh = build_model(trained.job.spec, resolve(trained.job, "model", trained.job.spec.model)).eval()
    with torch.no_grad():
        for parameter in fresh.parameters():
            parameter.zero_()
    load_weights(fresh, path)
    differences = [
        _difference(_call(model, tensors, is_named), _call(fresh, tensors, is_named), rows, is_exact=True)
        for rows, tensors in examples.items()
    ]
    return max(differences)


def _write_program(
    trained: TrainedModel, model: nn.Module, path: Path, examples: dict[int, Any], is_named: bool
) -> tuple[list[str], dict[int, Any]]:
    """Traces the model for any batch size, or for one row if it does not support that."""
    import torch

    notices = []
    precision = trained.job.spec.train.precision
    if precision != "fp32":
        notices.append(f"the program computes in the dtypes of its weights, not in {precision} like the training")
    rows = _CHECKED_BATCHES[0]
    _call(model, examples[rows], is_named)
    try:
        program = _trace(model, examples[rows], is_named, torch.export.Dim.DYNAMIC)
    except Exception:
        try:
            program = _trace(model, examples[1], is_named, None)
        except Exception as error:
            reason = str(error).strip().partition("\n")[0]
            raise InferenceError(
                f"torch.export cannot trace this model: {type(error).__name__}: {reason}; use `format` safetensors"
            ) from error
        examples = {1: examples[1]}
        notices.append("tracing fixes the batch size of this model: the program accepts exactly 1 row at a time")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(program, path)
    return notices, examples


def _trace(model: nn.Module, tensors: Mapping[str, torch.Tensor], is_named: bool, rows: Any) -> Any:
    import torch

    shapes = {name: None if rows is None else {0: rows} for name in tensors}
    with torch.no_grad(), warnings.catch_warnings(), open(os.devnull, "w") as null, contextlib.redirect_stderr(null):
        warnings.simplefilter("ignore")
        if is_named:
            return torch.export.export(model, (), dict(tensors), dynamic_shapes=shapes)
        return torch.export.export(model, tuple(tensors.values()), dynamic_shapes=tuple(shapes.values()))


def _check_program(
    trained: TrainedModel, model: nn.Module, path: Path, examples: Mapping[int, Any], is_named: bool
) -> float:
    """Runs the program in a separate interpreter in which distrib and the job's modules cannot be imported."""
    from safetensors.torch import load_file, save_file

    with tempfile.TemporaryDirectory(prefix="distrib-export-") as name:
        folder = Path(name)
        for rows, tensors in examples.items():
            save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, folder / _inputs(rows))
        _run_program(trained, path, folder, [] if is_named else ["--positional"])
        differences = []
        for rows, tensors in examples.items():
            found = load_file(folder / f"outputs-{_inputs(rows)}")
            theirs = [found[str(index)] for index in range(len(found))]
            differences.append(_difference(_call(model, tensors, is_named), theirs, rows, is_exact=False))
    return max(differences)


def _inputs(rows: int) -> str:
    return f"inputs-{rows}.safetensors"


def _run_program(trained: TrainedModel, path: Path, folder: Path, options: Sequence[str]) -> None:
    users = {trained.job.spec.model.target.partition(":")[0].partition(".")[0]} - {"torch"}
    command = [sys.executable, "-I", "-c", _RUN_PROGRAM, str(folder), str(path.absolute()), "distrib", *users, *options]
    try:
        result = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=_CHECK_TIMEOUT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise InferenceError("checking the exported program timed out") from None
    if result.returncode != 0:
        reason = (result.stderr.strip().splitlines() or ["no output"])[-1]
        raise InferenceError(f"the exported program does not run on its own: {reason}; use `format` safetensors")


def _difference(ours: Sequence[torch.Tensor], theirs: Sequence[torch.Tensor], rows: int, *, is_exact: bool) -> float:
    """The largest difference between the outputs of two models.

    Raises:
        InferenceError: They differ by more than rounding, or at all if `is_exact`.
    """
    import torch

    largest = 0.0
    try:
        assert len(ours) == len(theirs), f"{len(theirs)} outputs instead of {len(ours)}"
        for our, their in zip(ours, theirs, strict=True):
            zero = 0.0 if is_exact else None  # None: torch's default tolerance for the dtype
            torch.testing.assert_close(their, our, equal_nan=True, rtol=zero, atol=zero)
            if our.numel() and our.is_floating_point():
                difference = (their.double() - our.double()).abs().nan_to_num(0.0)
                largest = max(largest, float(difference.max()))
    except AssertionError as error:
        reason = " ".join(str(error).split())
        raise InferenceError(
            f"the exported model gives other outputs for {rows} rows: {reason}; nothing was written"
        ) from None
    return largest
