"""The order of samples that a job's `data.order` names."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from distrib.errors import DistribError
from distrib.job.reader import Job
from distrib.job.target import check_arguments, resolve
from distrib.train.data.order import Order, Sequential, Shuffle
from distrib.train.data.target_order import TargetOrder, blame

_FIELD = "data.order"
_STEPS_PER_EPOCH = "$steps_per_epoch"


def find_order(job: Job) -> Callable[..., Any] | None:
    """What `data.order` names, its arguments checked; None for `shuffle` and `sequential`.

    Raises:
        JobError: It does not exist, or cannot be called with a dataset, an epoch and a seed.
    """
    target = job.spec.data.order
    if not target.is_own:
        return None
    function: Callable[..., Any] = resolve(job, _FIELD, target)
    check_arguments(job, _FIELD, function, target.args, num_positional=0 if inspect.isclass(function) else 3)
    return function


def build_order(job: Job, function: Callable[..., Any] | None, dataset: Any) -> Order:
    """The order of a dataset's samples; one of the job's own is called for the first epoch.

    Raises:
        JobError: The job's code raised, or gave what is no order of the dataset.
    """
    spec = job.spec
    target, size, seed = spec.data.order, spec.data.batch_size, spec.train.seed
    if function is None:
        is_shuffled = target.target == "shuffle"
        return Shuffle(len(dataset), size, seed) if is_shuffled else Sequential(len(dataset), size)
    try:
        order = TargetOrder(
            _bound(job, function),
            target.target,
            dataset,
            batch_size=size,
            seed=seed,
            train_length=(spec.train.epochs, spec.train.steps),
        )
        facts = order.facts
    except DistribError as error:
        raise job.error(_FIELD, str(error).removeprefix(f"{_FIELD}: ")) from error
    except Exception as error:
        raise job.error(_FIELD, blame(error, target.target)) from error
    if facts.may_differ:
        _refuse_steps_per_epoch(job)
    return order


def _bound(job: Job, function: Callable[..., Any]) -> Any:
    """A class is instantiated with the job's args, which a function gets with each call."""
    args = job.spec.data.order.args
    if not inspect.isclass(function):
        return functools.partial(function, **args) if args else function
    made = function(**args)
    if not callable(made):
        message = f"{job.spec.data.order.target} is a class without __call__(self, dataset, epoch, seed)"
        raise job.error(_FIELD, message)
    check_arguments(job, _FIELD, made, {}, num_positional=3)
    return made


def _refuse_steps_per_epoch(job: Job) -> None:
    """Refuses `$steps_per_epoch` in the arguments of optimizers and schedules."""
    for each in job.spec.optimizer_specs.values():
        for field, target in ((each.field, each.target), (each.schedule_field, each.schedule)):
            for path in [] if target is None else _uses(target.args, f"{field}.args"):
                raise job.error(
                    path,
                    f"{_STEPS_PER_EPOCH} is not one number, since data.order has num_steps: epochs differ; use $steps",
                )


def _uses(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _uses(item, f"{path}.{key}")
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _uses(item, f"{path}.{number}")
    elif value == _STEPS_PER_EPOCH:
        yield path
