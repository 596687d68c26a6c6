"""From samples to a batch: the job's `data.collate`, or PyTorch's own with errors that name the sample at fault."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy
import torch
from torch.utils.data import default_collate

from distrib.errors import DistribError
from distrib.job.reader import Job
from distrib.job.target import check_arguments, resolve

Collate = Callable[[list[Any]], Any]
_FIELD = "data.collate"


class CollateError(DistribError):
    """Samples cannot be put into one batch."""


def find_collate(job: Job) -> Callable[..., Any] | None:
    """What `data.collate` names, its arguments checked.

    Raises:
        JobError: It does not exist or refuses its arguments.
    """
    target = job.spec.data.collate
    if target is None:
        return None
    function: Callable[..., Any] = resolve(job, _FIELD, target)
    check_arguments(job, _FIELD, function, target.args, num_positional=0 if _is_collator(function) else 1)
    return function


def bind_collate(job: Job, function: Callable[..., Any] | None) -> Collate | None:
    """A function of samples: an instance of a collator class, or the function with its arguments bound.

    Raises:
        JobError: The class cannot be instantiated.
    """
    target = job.spec.data.collate
    if function is None or target is None:
        return None
    if not _is_collator(function):
        return functools.partial(function, **target.args)
    try:
        collate: Collate = function(**target.args)
    except Exception as error:
        raise job.error(_FIELD, f"{target.target} could not be built: {type(error).__name__}: {error}") from error
    return collate


def _is_collator(function: Callable[..., Any]) -> bool:
    """Whether `function` is a class whose instances are called; one without `__call__` is itself the batch."""
    return inspect.isclass(function) and "__call__" in {name for kind in function.__mro__ for name in vars(kind)}


def collate_samples(samples: list[Any], indices: Sequence[int]) -> Any:
    """PyTorch's default batch of `samples`.

    Raises:
        CollateError: There is none; the message names a sample at fault by its index in the dataset.
    """
    try:
        return default_collate(samples)
    except (TypeError, RuntimeError, KeyError, ValueError) as error:
        problem = _problem(samples, indices)
        if problem is None:
            raise
        raise CollateError(
            f"the dataset's samples cannot be put into one batch: {problem}; return tensors, numbers, or dicts and "
            "tuples of them, of equal shapes, or give data.collate"
        ) from error


def _problem(samples: list[Any], indices: Sequence[int]) -> str | None:
    for sample, index in zip(samples, indices, strict=False):
        found = _unsupported(sample, "")
        if found is not None:
            return f"sample {index} {found}"
    for sample, index in zip(samples[1:], indices[1:], strict=False):
        found = _difference(samples[0], sample, "")
        if found is not None:
            return f"samples {indices[0]} and {index} {found}"
    return None


def _unsupported(value: Any, path: str) -> str | None:
    """What PyTorch cannot batch in a sample."""
    if isinstance(value, torch.Tensor | int | float | str | bytes | numpy.number | numpy.bool_):
        return None
    if isinstance(value, numpy.ndarray):
        return None if value.dtype.kind in "biufc" else f"has{_at(path)} an array of type {value.dtype}"
    if isinstance(value, Mapping):
        parts = [(f"{path}[{key!r}]", item) for key, item in value.items()]
    elif isinstance(value, Sequence):
        parts = [(f"{path}[{number}]", item) for number, item in enumerate(value)]
    else:
        return f"is {_kind(value)}{_at(path)}"
    return next((found for place, item in parts if (found := _unsupported(item, place)) is not None), None)


def _difference(first: Any, other: Any, path: str) -> str | None:
    """How two samples differ so that they cannot be batched."""
    shapes = getattr(first, "shape", None), getattr(other, "shape", None)
    if shapes != (None, None):
        return None if shapes[0] == shapes[1] else f"differ{_at(path)}: shapes {_shape(first)} and {_shape(other)}"
    if isinstance(first, Mapping) and isinstance(other, Mapping):
        if first.keys() != other.keys():
            missing = sorted(map(str, first.keys() ^ other.keys()))
            return f"differ{_at(path)}: only one of them has {', '.join(missing)}"
        pairs = [(f"{path}[{key!r}]", first[key], other[key]) for key in first]
    elif isinstance(first, list | tuple) and isinstance(other, list | tuple):
        if len(first) != len(other):
            return f"differ{_at(path)}: {len(first)} and {len(other)} entries"
        pairs = [(f"{path}[{number}]", a, b) for number, (a, b) in enumerate(zip(first, other, strict=True))]
    else:
        return None if type(first) is type(other) else f"differ{_at(path)}: {_kind(first)} and {_kind(other)}"
    return next((found for place, a, b in pairs if (found := _difference(a, b, place)) is not None), None)


def _at(path: str) -> str:
    return f" at {path}" if path else ""


def _kind(value: Any) -> str:
    return "None" if value is None else f"of type {type(value).__name__}"


def _shape(value: Any) -> str:
    return str(tuple(value.shape)) if hasattr(value, "shape") else _kind(value)
