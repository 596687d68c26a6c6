"""Turns the outputs of a model for a batch into named columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy
import torch

from distrib.errors import InferenceError
from distrib.inference.columns import OUTPUT, Column

_WIDENED = {torch.bfloat16: torch.float32, torch.complex32: torch.complex64}
"""Types that NumPy lacks, and types that hold the same values."""


def name_outputs(result: Any) -> dict[str, Any]:
    """The outputs by name: those of a mapping or named tuple, `output` for one tensor, `output_0` … for several.

    Raises:
        InferenceError: They are none of these.
    """
    if isinstance(result, torch.Tensor | numpy.ndarray):
        return {OUTPUT: result}
    if isinstance(result, Mapping):
        named = {str(name): value for name, value in result.items() if value is not None}
    elif isinstance(result, tuple) and hasattr(result, "_fields"):
        named = {name: getattr(result, name) for name in result._fields}
    elif isinstance(result, list | tuple) and all(isinstance(value, torch.Tensor) for value in result):
        named = {f"{OUTPUT}_{index}": value for index, value in enumerate(result)}
    else:
        raise InferenceError(
            f"the model returned a {type(result).__name__}, but a tensor or named columns are needed; "
            "define the outputs with predict: in the job"
        )
    if not named:
        raise InferenceError("the outputs have no column")
    return named


def check_rows(columns: Mapping[str, Any], num_rows: int) -> None:
    """Checks that every column has one entry per row.

    Raises:
        InferenceError: A column has another length.
    """
    for name, column in columns.items():
        if isinstance(column, torch.Tensor | numpy.ndarray):
            found = column.shape[0] if column.ndim else None
        else:
            is_list = isinstance(column, Sequence) and not isinstance(column, str | bytes)
            found = len(column) if is_list else None
        if found != num_rows:
            has = "a single value" if found is None else f"{found}"
            raise InferenceError(
                f"{_shown(name)} must have one entry for each of {num_rows} rows, but has {has}; "
                "define one output per row with predict: in the job"
            )


def to_numpy(column: Any) -> Column:
    """A column as an array; a list stays a list."""
    if not isinstance(column, torch.Tensor):
        return column if isinstance(column, numpy.ndarray) else list(column)
    dtype = _WIDENED.get(column.dtype, torch.float32 if "float8" in str(column.dtype) else column.dtype)
    array: numpy.ndarray[Any, Any] = column.to(dtype).numpy()
    return array


def _shown(name: str) -> str:
    return "the output" if name == OUTPUT else f"the output '{name}'"
