"""The dataset to predict: named on the command line and built like the datasets of a job."""

from __future__ import annotations

import dataclasses
import traceback
from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from distrib.errors import JobError
from distrib.job.reader import Job
from distrib.job.spec.targets import Target
from distrib.job.target import find_callable
from distrib.job.values import read_values
from distrib.job.yaml.nodes import MapNode, SourceLocation
from distrib.job.yaml.parser import parse
from distrib.train.process.randomness import derive_seed, reseed


def read_target(text: str, args: str | None) -> Target:
    """Reads a target and its args as they are given on the command line.

    Raises:
        JobError: One of them is malformed.
    """
    values: dict[str, Any] = {}
    if args is not None and args.strip():
        root = parse(args, "`args`", counts_lines=False)
        if not isinstance(root, MapNode):
            raise JobError("write them as a mapping, such as '{split: test}'", field="`args`")
        read = read_values(root)
        if read.problems:
            field, problem = read.problems[0]
            raise JobError(problem, file="`args`", field=field)
        values = read.data
    try:
        return Target(target=text, args=values)
    except ValidationError:
        advice = "write it as module:attribute, as in jobs.digits:Digits; put its arguments into `args`"
        raise JobError(f"'{text}' does not name a dataset; {advice}", field="`data`") from None


def build_dataset(job: Job, target: Target) -> Any:
    """Builds the dataset, which may be empty; what it draws from global random generators is the same everywhere.

    Raises:
        JobError: It cannot be built, or is not a map-style dataset.
    """
    placed = dataclasses.replace(
        job, locations={"": SourceLocation("`data`"), "dataset.args": SourceLocation("`args`")}
    )
    factory = find_callable(placed, "dataset", target)
    reseed(derive_seed("data", job.spec.train.seed))
    try:
        dataset = factory(**target.args)
        length = len(dataset)
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        reason = f"{type(error).__name__}: {error} ({where.filename}:{where.lineno})"
        raise JobError(f"{target.target} could not be built: {reason}", field="`data`") from error
    if length < 0 or not (hasattr(dataset, "__getitem__") or hasattr(dataset, "__getitems__")):
        kind = type(dataset).__name__
        raise JobError(f"{target.target} returns a {kind}, which is not a map-style dataset", field="`data`")
    return dataset


def bound_collate(job: Job) -> Callable[[list[Any]], Any] | None:
    """The job's `data.collate` bound with its args, or None for PyTorch's own."""
    from distrib.train.data.collate import bind_collate, find_collate

    return bind_collate(job, find_collate(job))
