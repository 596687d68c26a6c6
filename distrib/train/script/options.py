"""What a script says when it asks for its session, and when it begins a loop; checked with the script's line."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args

from torch.utils.data import IterableDataset

from distrib.job.plan import StepPlan, split_evenly
from distrib.job.spec.amounts import Interval
from distrib.job.spec.patterns import SAVE_INTERVAL_PATTERN, STEP_INTERVAL_PATTERN
from distrib.train.data.order import Order, Sequential, Shuffle
from distrib.train.script.errors import UsageError
from distrib.train.settings import PrecisionName, TrainingSettings

ORDERS = ("shuffle", "sequential")


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
    order: str = "shuffle"
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
            raise UsageError(f"session.batches: order is one of {', '.join(ORDERS)}, not {self.order!r}")
        if self.collate is not None and not callable(self.collate):
            raise UsageError(f"session.batches: collate is a function of samples, not a {type(self.collate).__name__}")

    def make_order(self, seed: int) -> Order:
        """The order of samples of each epoch."""
        if self.order == "sequential":
            return Sequential(len(self.dataset), self.batch_size)
        return Shuffle(len(self.dataset), self.batch_size, seed)

    def plan(self, options: SessionOptions, world_size: int) -> StepPlan:
        """The steps of the loop, counted from 0."""
        samples, batch = len(self.dataset), self.batch_size
        full_batch, steps_per_epoch = min(batch, samples), -(-samples // batch)
        last_batch = samples - (steps_per_epoch - 1) * batch
        rank_batches = split_evenly(full_batch, world_size)
        save = Interval.parse(options.checkpoint)
        return StepPlan(
            world_size=world_size,
            train_samples=samples,
            eval_samples=None,
            global_batch_size=full_batch,
            last_batch_size=last_batch,
            steps_per_epoch=steps_per_epoch,
            total_steps=self.steps or (self.epochs or 0) * steps_per_epoch,
            rank_batches=rank_batches,
            last_rank_batches=split_evenly(last_batch, world_size),
            micro_batches=(max(rank_batches),),
            accumulate=1,
            eval_batch_size=0,
            eval_interval_steps=0,
            log_interval_steps=options.log_every,
            save_interval_steps=save.in_steps(steps_per_epoch),
            save_interval_seconds=save.count if save.unit == "second" else 0,
            notes=(),
        )


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
