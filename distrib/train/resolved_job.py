"""A job's targets as the Python objects that they name, checked before anything is built from them."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from distrib.job.reader import Job
from distrib.job.spec.targets import Target
from distrib.job.step_plan import Facts
from distrib.job.target import check_arguments, resolve
from distrib.train.data.collate import bind_collate, find_collate
from distrib.train.data.order import Order
from distrib.train.data.order_of_job import build_order, find_order
from distrib.train.process.randomness import derive_seed, reseed
from distrib.train.session.mentions import check_session_step, takes_session


@dataclass(frozen=True)
class Datasets:
    """The datasets of a job, built, and the order in which those for training are used."""

    train: Any
    eval: Any | None
    order: Order

    @property
    def facts(self) -> Facts:
        """Their lengths, and what the order makes of them."""
        return Facts(len(self.train), None if self.eval is None else len(self.eval), self.order.facts)


@dataclass(frozen=True)
class ResolvedJob:
    """The callables that a job's targets name."""

    job: Job
    model: Callable[..., Any]
    train_dataset: Callable[..., Any]
    eval_dataset: Callable[..., Any] | None
    collate: Callable[..., Any] | None
    order: Callable[..., Any] | None
    loss: Callable[..., Any] | None
    step: Callable[..., Any] | None
    metrics: dict[str, Callable[..., Any]]
    predict: Callable[..., Any] | None
    optimizers: dict[str, Callable[..., Any]]
    schedules: dict[str, Callable[..., Any] | None]
    callbacks: list[Callable[..., Any]]

    @classmethod
    def resolve(cls, job: Job) -> ResolvedJob:
        """Imports what the job names and checks its arguments; what modules draw at import is the same on all ranks.

        Raises:
            JobError: A target does not exist, is not callable or refuses its arguments.
        """

        def find(field: str, target: Target | None, num_positional: int = 0) -> Any:
            if target is None:
                return None
            function = resolve(job, field, target)
            check_arguments(job, field, function, target.args, num_positional=num_positional)
            return function

        spec = job.spec
        reseed(derive_seed("import", spec.train.seed))
        return cls(
            job=job,
            model=find("model", spec.model),
            train_dataset=find("data.train", spec.data.train),
            eval_dataset=find("data.eval", spec.data.eval),
            collate=find_collate(job),
            order=find_order(job),
            loss=None if spec.loss is None else _find_loss(job, spec.loss),
            step=None if spec.step is None else _find_step(job, spec.step),
            metrics={name: find(f"metrics.{name}", target) for name, target in spec.metrics.items()},
            predict=find("predict", spec.predict, 2),
            optimizers={
                name: _find_optimizer(job, each.field, each.target) for name, each in spec.optimizer_specs.items()
            },
            schedules={
                name: find(each.schedule_field, each.schedule, 1) for name, each in spec.optimizer_specs.items()
            },
            callbacks=[find(f"callbacks.{number}", target) for number, target in enumerate(spec.callbacks)],
        )

    def build_datasets(self) -> Datasets:
        """Builds the datasets; what they draw from global random generators is the same on all ranks.

        Raises:
            JobError: A dataset cannot be built, has no length, or is empty, or the order of samples is wrong.
        """
        data = self.job.spec.data
        reseed(derive_seed("data", self.job.spec.train.seed))
        train = self._build_dataset("data.train", self.train_dataset, data.train)
        evaluation = None
        if self.eval_dataset is not None and data.eval is not None:
            evaluation = self._build_dataset("data.eval", self.eval_dataset, data.eval)
        return Datasets(train, evaluation, build_order(self.job, self.order, train))

    def _build_dataset(self, field: str, function: Callable[..., Any], target: Target) -> Any:
        try:
            dataset = function(**target.args)
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            reason = f"{type(error).__name__}: {error} ({where.filename}:{where.lineno})"
            raise self.job.error(field, f"{target.target} could not be built: {reason}") from error
        if isinstance(dataset, IterableDataset):
            raise self.job.error(
                field,
                f"{target.target} gives a {type(dataset).__name__}, an IterableDataset; a map-style dataset is needed, "
                "whose samples can be fetched in any order by index (__getitem__ and __len__)",
            )
        if isinstance(dataset, DataLoader):
            raise self.job.error(
                field, f"{target.target} gives a DataLoader; give its dataset, of which batches are made here"
            )
        if not _has_items(dataset):
            raise self.job.error(
                field, f"{target.target} gives a {type(dataset).__name__}, which has no __getitem__; "
                "a map-style dataset is needed"
            )  # fmt: skip
        try:
            length = len(dataset)
        except (TypeError, NotImplementedError):
            raise self.job.error(
                field, f"{target.target} has no __len__; a map-style dataset, which knows its length, is needed"
            ) from None
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise self.job.error(field, f"the length of {target.target} cannot be found: {reason}") from error
        if length == 0:
            raise self.job.error(field, f"{target.target} is empty: its length is 0; check its args")
        return dataset

    def bound_collate(self) -> Callable[[list[Any]], Any] | None:
        """`data.collate` with its args bound, or None for PyTorch's own."""
        return bind_collate(self.job, self.collate)


def _has_items(dataset: Any) -> bool:
    """Whether samples can be fetched by index; torch's base class only has methods that say that they cannot."""
    names = ("__getitem__", "__getitems__")
    methods = [getattr(type(dataset), name, None) for name in names]
    return any(method is not None and method is not Dataset.__getitem__ for method in methods)


def _find_loss(job: Job, target: Target) -> Callable[..., Any]:
    """A loss class is instantiated with its args; a function takes the outputs and the targets too."""
    function = resolve(job, "loss", target)
    check_arguments(job, "loss", function, target.args, num_positional=0 if inspect.isclass(function) else 2)
    return function  # type: ignore[no-any-return]


def _find_step(job: Job, target: Target) -> Callable[..., Any]:
    """A step takes the model and the batch, and the session if it has a parameter of that name."""
    function: Callable[..., Any] = resolve(job, "step", target)
    args = dict(target.args)
    if takes_session(function):
        if "session" in args:
            raise job.error("step.args.session", "distrib passes 'session' to the step; remove it")
        args["session"] = None
        check_session_step(job, function)
    check_arguments(job, "step", function, args, num_positional=2)
    return function


def _find_optimizer(job: Job, field: str, target: Target) -> Callable[..., Any]:
    """A function of the model, and of the loss if it has a parameter of that name, or a class of optimizers."""
    function: Callable[..., Any] = resolve(job, field, target)
    args = dict(target.args)
    if not is_optimizer_class(function) and takes_loss(function):
        args.setdefault("loss", None)
    check_arguments(job, field, function, args, num_positional=1)
    return function


def takes_loss(function: Callable[..., Any]) -> bool:
    """Whether a function that makes an optimizer has a parameter named `loss`."""
    try:
        return "loss" in inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False


def is_optimizer_class(function: Callable[..., Any]) -> bool:
    """Whether `function` is an Optimizer class, which gets the named parameters, not the model."""
    return inspect.isclass(function) and issubclass(function, torch.optim.Optimizer)
