"""The dataset that a model is asked about: named on the command line, built like a job's own."""

from __future__ import annotations

import dataclasses
import functools
import traceback
from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from distrib.errors import JobError
from distrib.job.reader import Job
from distrib.job.spec import Target
from distrib.job.target import check_arguments, resolve
from distrib.job.values import read_values
from distrib.job.yaml.nodes import MapNode, SourceLocation
from distrib.job.yaml.parser import parse


def read_target(text: str, args: str | None) -> Target:
    """The target of `--data TEXT --args YAML`.

    Raises:
        JobError: Either is not written as it must be.
    """
    values: dict[str, Any] = {}
    if args is not None and args.strip():
        root = parse(args, "--args", counts_lines=False)
        if not isinstance(root, MapNode):
            raise JobError("write them as a mapping, such as '{split: test}'", field="--args")
        read = read_values(root)
        if read.problems:
            field, problem = read.problems[0]
            raise JobError(problem, file="--args", field=field)
        values = read.data
    try:
        return Target(target=text, args=values)
    except ValidationError:
        form = "write it as module:attribute, as in jobs.digits:Digits; its arguments go to --args"
        raise JobError(f"'{text}' names no dataset; {form}", field="--data") from None


def build_dataset(job: Job, target: Target) -> Any:
    """The dataset; empty ones are welcome.

    Raises:
        JobError: It cannot be had, or is no map-style dataset.
    """
    placed = dataclasses.replace(
        job, locations={"": SourceLocation("--data"), "dataset.args": SourceLocation("--args")}
    )
    factory = resolve(placed, "dataset", target)
    check_arguments(placed, "dataset", factory, target.args)
    try:
        dataset = factory(**target.args)
        length = len(dataset)
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        reason = f"{type(error).__name__}: {error} ({where.filename}:{where.lineno})"
        raise JobError(f"{target.target} could not be built: {reason}", field="--data") from error
    if length < 0 or not (hasattr(dataset, "__getitem__") or hasattr(dataset, "__getitems__")):
        kind = type(dataset).__name__
        raise JobError(f"{target.target} gives a {kind}, which is no map-style dataset", field="--data")
    return dataset


def bound_collate(job: Job) -> Callable[[list[Any]], Any] | None:
    """The job's `data.collate` with its args bound, or None for PyTorch's own."""
    target = job.spec.data.collate
    if target is None:
        return None
    function = resolve(job, "data.collate", target)
    check_arguments(job, "data.collate", function, target.args, num_positional=1)
    return functools.partial(function, **target.args)
