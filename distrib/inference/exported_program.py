"""Exports a model as a torch.export program and checks it in an interpreter without the job's code."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distrib.errors import InferenceError
from distrib.inference.model_outputs import call, largest_difference
from distrib.inference.trained_model import TrainedModel

if TYPE_CHECKING:
    import torch
    from torch import nn

TRACED_ROWS = 3
"""The batch size that a program is traced with."""
_CHECK_TIMEOUT_SECONDS = 300

_UNKNOWN_CONTAINER = re.compile(r"Deserializing (\S+) in pytree is not registered")
_ERROR = re.compile(r"\b[\w.]*(?:Error|Exception): .+")

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


def write_program(
    trained: TrainedModel, model: nn.Module, path: Path, examples: dict[int, Any], is_named: bool
) -> tuple[list[str], dict[int, Any]]:
    """Traces the model for any batch size, or for one row if it does not support that."""
    import torch

    notices = []
    precision = trained.job.spec.train.precision
    if precision != "fp32":
        notices.append(f"the program computes in the dtypes of its weights, not in {precision} like the training")
    rows = TRACED_ROWS
    call(model, examples[rows], is_named)
    try:
        program = _trace(model, examples[rows], is_named, torch.export.Dim.DYNAMIC)
    except Exception:
        try:
            program = _trace(model, examples[1], is_named, None)
        except Exception as error:
            reason = _without_end(str(error).strip().partition("\n")[0])
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


def check_program(
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
            differences.append(largest_difference(call(model, tensors, is_named), theirs, rows, is_exact=False))
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
        reason = failure_reason(result.stderr)
        raise InferenceError(f"the exported program does not run on its own: {reason}; use `format` safetensors")


def failure_reason(output: str) -> str:
    """The cause of a failure, from what Python and torch wrote about it.

    torch logs what fails while it loads a program, and then raises an error that only refers to that log.
    """
    if container := _UNKNOWN_CONTAINER.search(output):
        return (
            f"the model returns {container[1]}, which can be unpacked only where its library is imported; let it "
            "return tensors in a tuple or dict (transformers: return_dict=False)"
        )
    errors = [match[0] for match in _ERROR.finditer(output) if "warnings above" not in match[0]]
    lines = output.strip().splitlines()
    return _without_end(errors[-1] if errors else lines[-1] if lines else "no output")


def _without_end(sentence: str) -> str:
    return sentence.strip().rstrip(".")
