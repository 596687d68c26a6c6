"""What a script says when it asks for its session, and when it begins a loop; checked with the script's line."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args

from torch.utils.data import IterableDataset

from distrib.job.spec.amounts import Interval
from distrib.job.spec.patterns import SAVE_INTERVAL_PATTERN, STEP_INTERVAL_PATTERN
from distrib.job.step_plan import Facts, StepPlan, StepSettings, plan_steps
from distrib.train.data.order import Order, Sequential, Shuffle
from distrib.train.data.target_order import OrderError, OrderFunction, TargetOrder
from distrib.train.script.errors import UsageError
from distrib.train.script.orders import ORDERS, find_order, order_name, order_problem
from distrib.train.settings import PrecisionName, TrainingSettings


@dataclass(frozen=True, kw_only=True)
class SessionOptions:
    """The arguments of `distrib.session`; see there."""

    seed: int = 0
    precision: PrecisionName = "fp32"
    deterministic: bool = False
    checkpoint: str = "1 epoch"
    keep: int = 2
    log_every: int = 10

    def check(self) -> None:
        """Raises UsageError if a value cannot be used."""
        if self.precision not in get_args(PrecisionName):
            raise UsageError(f"distrib.session: precision is one of fp32, bf16 and fp16, not {self.precision!r}")
        if not isinstance(self.checkpoint, str) or not re.match(SAVE_INTERVAL_PATTERN, self.checkpoint):
            raise UsageError(
                f"distrib.session: checkpoint is an interval such as '100 steps', '1 epoch', '60 seconds' or 'never', "
                f"not {self.checkpoint!r}"
            )
        for name in ("keep", "log_every"):
            check_count(f"distrib.session: {name}", getattr(self, name))
        if not isinstance(self.seed, int) or not 0 <= self.seed < 2**63:
            raise UsageError(f"distrib.session: seed is a whole number from 0 to 2**63 - 1, not {self.seed!r}")

    @property
    def settings(self) -> TrainingSettings:
        """What the engine needs of them."""
        return TrainingSettings(
            seed=self.seed, precision=self.precision, deterministic=self.deterministic, keep=self.keep
        )


@dataclass(frozen=True, kw_only=True)
class LoopOptions:
    """The arguments of `session.batches`; see there."""

    dataset: Any
    batch_size: int
    epochs: int | None = None
    steps: int | None = None
    order: str | OrderFunction = "shuffle"
    collate: Callable[[list[Any]], Any] | None = None
    loader_workers: int = 0

    def check(self) -> None:
        """Raises UsageError if a value cannot be used."""
        check_dataset("session.batches", self.dataset)
        check_count("session.batches: batch_size", self.batch_size)
        if (self.epochs is None) == (self.steps is None):
            raise UsageError("session.batches: give either epochs or steps")
        check_count(
            *(
                ("session.batches: epochs", self.epochs)
                if self.steps is None
                else ("session.batches: steps", self.steps)
            )
        )
        if self.order not in ORDERS:
            find_order(self.order)
        if self.collate is not None and not callable(self.collate):
            raise UsageError(f"session.batches: collate is a function of samples, not a {type(self.collate).__name__}")

    @property
    def order_name(self) -> str:
        """The order, for people and checkpoints."""
        return order_name(self.order)

    def make_order(self, seed: int) -> Order:
        """The order of samples of each epoch; one of the script's own is called for the first epoch.

        Raises:
            UsageError: It gave what is no order of the dataset.
        """
        if self.order == "sequential":
            return Sequential(len(self.dataset), self.batch_size)
        if self.order == "shuffle":
            return Shuffle(len(self.dataset), self.batch_size, seed)
        try:
            order = TargetOrder(
                find_order(self.order),
                self.order_name,
                self.dataset,
                batch_size=self.batch_size,
                seed=seed,
                train_length=(self.epochs, self.steps),
            )
            assert order.facts
        except OrderError as error:
            raise order_problem(error) from error
        return order

    def plan(self, options: SessionOptions, order: Order, world_size: int) -> StepPlan:
        """The steps of the loop, counted from 0."""
        settings = StepSettings(
            batch_size=self.batch_size,
            epochs=self.epochs,
            steps=self.steps,
            log_every=options.log_every,
            save_every=options.checkpoint,
        )
        return plan_steps(settings, Facts(len(self.dataset), order=order.facts), world_size)


def parse_interval(text: str) -> Interval:
    """An interval of `is_due`; UsageError if it is none."""
    if not isinstance(text, str) or not re.match(STEP_INTERVAL_PATTERN, text) or text == "never":
        raise UsageError(f"session.is_due: needs an interval such as '100 steps' or '1 epoch', not {text!r}")
    return Interval.parse(text)


def check_count(what: str, value: Any) -> None:
    """Raises UsageError unless the value is a whole number from 1."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UsageError(f"{what} is a whole number from 1, not {value!r}")


def check_dataset(member: str, dataset: Any) -> None:
    """Raises UsageError unless samples can be fetched from the dataset by index."""
    kind = type(dataset).__name__
    if isinstance(dataset, IterableDataset) or not (
        hasattr(dataset, "__getitem__") or hasattr(dataset, "__getitems__")
    ):
        raise UsageError(
            f"{member}: needs a map-style dataset, whose samples can be fetched in any order by index (__getitem__ and "
            f"__len__), not a {kind}"
        )
    try:
        length = len(dataset)
    except (TypeError, NotImplementedError):
        raise UsageError(
            f"{member}: the {kind} has no __len__; a map-style dataset, which knows its length, is needed"
        ) from None
    if length == 0:
        raise UsageError(f"{member}: the {kind} is empty")
