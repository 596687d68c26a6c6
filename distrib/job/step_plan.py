"""The steps of a run: what every rank does in each, at a given number of workers."""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from distrib.job.spec.amounts import Interval
from distrib.job.spec.job import JobSpec
from distrib.job.spec.targets import Target


@dataclass(frozen=True)
class OrderFacts:
    """What a `data.order` of the job's own makes of the epochs.

    Attributes:
        samples: Samples of the first epoch, each counted as often as it occurs.
        num_steps: The steps of every epoch of the run, if the order says that they may differ; otherwise those of the
            first, which all have.
        may_differ: Whether the numbers of steps may differ.
        batch_sizes: The smallest, the largest and the last global batch of the first epoch, if the order gives whole
            batches; None if it gives indices, of which each step takes `data.batch_size`.
    """

    samples: int
    num_steps: tuple[int, ...]
    may_differ: bool = False
    batch_sizes: tuple[int, int, int] | None = None


@dataclass(frozen=True)
class Facts:
    """What is known only from the job's code: the lengths of its datasets, in samples, and what its order gives."""

    train_samples: int
    eval_samples: int | None = None
    order: OrderFacts | None = None


@dataclass(frozen=True)
class StepPlan:
    """What every rank does: a pure function of the job, its facts and the number of workers.

    Sizes are in samples. `rank_batches` are the slices of a full global batch by rank, `last_rank_batches` those of an
    epoch's last batch, `micro_batches` the largest slice split for accumulation. An interval of 0 means never; one in
    epochs is given only if epochs differ in their steps. With a `data.order` of the job's own, `order` is what is known
    of it, and sizes and `steps_per_epoch` are those of the first epoch. A step with a session is evaluated in global
    batches of `eval_global_batch_size`; without one, each rank evaluates `eval_batch_size` samples at a time.
    """

    world_size: int
    train_samples: int
    eval_samples: int | None
    global_batch_size: int
    last_batch_size: int
    steps_per_epoch: int
    total_steps: int
    rank_batches: tuple[int, ...]
    last_rank_batches: tuple[int, ...]
    micro_batches: tuple[int, ...]
    accumulate: int
    eval_batch_size: int
    eval_interval_steps: int
    log_interval_steps: int
    save_interval_steps: int
    save_interval_seconds: int
    notes: tuple[str, ...]
    order: OrderFacts | None = None
    eval_global_batch_size: int = 0
    eval_interval_epochs: int = 0
    save_interval_epochs: int = 0

    def position(self, completed_steps: int) -> tuple[int, int]:
        """The next (epoch, step in the epoch) after `completed_steps` steps; at the end of an epoch, (epoch + 1, 0)."""
        if not self.epoch_ends:
            return divmod(completed_steps, self.steps_per_epoch)
        epoch = bisect_right(self.epoch_ends, completed_steps)
        return epoch, completed_steps - (self.epoch_ends[epoch - 1] if epoch else 0)

    @cached_property
    def epoch_ends(self) -> tuple[int, ...]:
        """The completed steps at the end of each epoch, if epochs differ in their steps."""
        if self.order is None or not self.order.may_differ:
            return ()
        return tuple(itertools.accumulate(self.order.num_steps))

    def samples_after(self, completed_steps: int) -> int:
        """Samples processed in the first `completed_steps` optimizer steps, if all epochs are as the first one.

        With an order of the job's own, ranks count them instead.
        """
        epoch, step = self.position(completed_steps)
        samples = self.train_samples if self.order is None else self.order.samples
        return epoch * samples + min(step * self.global_batch_size, samples)

    def is_logged(self, completed_steps: int) -> bool:
        """Whether a train event is due: at the first step, at every interval and at the last step."""
        return completed_steps in (1, self.total_steps) or completed_steps % self.log_interval_steps == 0

    def is_evaluated(self, completed_steps: int) -> bool:
        """Whether an evaluation is due: at every interval and, unless never, at the last step."""
        if not self.is_ever_evaluated:
            return False
        is_due = self._is_due(self.eval_interval_steps, self.eval_interval_epochs, completed_steps)
        return is_due or completed_steps == self.total_steps

    @property
    def is_ever_evaluated(self) -> bool:
        """Whether the run evaluates at all."""
        return self.eval_interval_steps > 0 or self.eval_interval_epochs > 0

    def _is_due(self, interval_steps: int, interval_epochs: int, completed_steps: int) -> bool:
        """Whether an interval in steps or in epochs ends with `completed_steps`."""
        if interval_epochs:
            epoch, step = self.position(completed_steps)
            return step == 0 and epoch % interval_epochs == 0
        return interval_steps > 0 and completed_steps % interval_steps == 0

    @property
    def smallest_micro_batch(self) -> int:
        """Samples of the smallest micro-batch that any rank runs, empty ones apart."""
        smallest = () if self.order is None or self.order.batch_sizes is None else self.order.batch_sizes[:1]
        slices = [split_evenly(size, self.world_size) for size in smallest]
        sizes = [size for each in (self.rank_batches, self.last_rank_batches, *slices) for size in each if size]
        return min(part for size in sizes for part in split_evenly(size, self.accumulate) if part)

    @property
    def is_ever_saved(self) -> bool:
        """Whether the run saves checkpoints at all."""
        return self.save_interval_steps > 0 or self.save_interval_epochs > 0 or self.save_interval_seconds > 0

    def is_saved(self, completed_steps: int) -> bool:
        """Whether a checkpoint is due by steps: at every interval and, unless never, at the last step."""
        if completed_steps == self.total_steps:
            return self.is_ever_saved
        return self._is_due(self.save_interval_steps, self.save_interval_epochs, completed_steps)

    def is_end_of_epoch(self, completed_steps: int) -> bool:
        """Whether `completed_steps` ends an epoch."""
        return self.position(completed_steps)[1] == 0


def part_of(total: int, part: int, parts: int) -> range:
    """The positions that belong to part `part` of `parts`: ⌊part·total/parts⌋ … ⌊(part+1)·total/parts⌋ of `total`."""
    return range(part * total // parts, (part + 1) * total // parts)


def split_evenly(total: int, parts: int) -> tuple[int, ...]:
    """The sizes of the `parts` consecutive slices into which `part_of` cuts `total` items."""
    return tuple(len(part_of(total, part, parts)) for part in range(parts))


@dataclass(frozen=True, kw_only=True)
class StepSettings:
    """What decides about the steps of a run besides its data: what a job's spec says, or a script's loop.

    Attributes:
        batch_size: Samples of a global batch.
        epochs: Passes over the data; None if `steps` is given.
        steps: The number of steps.
        accumulate: Micro-batches per step and rank.
        eval_batch_size: Samples that a rank evaluates at a time; None for a rank's part of a global batch.
        eval_every: The interval of evaluations.
        log_every: Steps between train events.
        save_every: The interval of checkpoints.
    """

    batch_size: int
    epochs: int | None
    steps: int | None
    log_every: int
    save_every: str
    accumulate: int = 1
    eval_batch_size: int | None = None
    eval_every: str = "never"

    @classmethod
    def of_job(cls, spec: JobSpec) -> StepSettings:
        """Those of a job."""
        return cls(
            batch_size=spec.data.batch_size,
            epochs=spec.train.epochs,
            steps=spec.train.steps,
            log_every=spec.train.log_every,
            save_every=spec.checkpoint.every,
            accumulate=spec.train.accumulate,
            eval_batch_size=spec.data.eval_batch_size,
            eval_every=spec.train.eval_every,
        )


def make_step_plan(spec: JobSpec, facts: Facts, world_size: int) -> StepPlan:
    """The step plan of `spec` on `world_size` ranks; the same on every rank and in `distrib plan`."""
    return replace(
        plan_steps(StepSettings.of_job(spec), facts, world_size), notes=tuple(_notes(spec, facts, world_size))
    )


def plan_steps(settings: StepSettings, facts: Facts, world_size: int) -> StepPlan:
    """The step plan on `world_size` ranks, without notes."""
    samples, batch, order = facts.train_samples, settings.batch_size, facts.order
    if order is not None:
        samples = order.samples
    full_batch = min(batch, samples)
    steps_per_epoch = -(-samples // batch)
    last_batch = samples - (steps_per_epoch - 1) * batch
    eval_batch = settings.eval_batch_size or -(-full_batch // world_size)
    if order is not None and order.batch_sizes is not None:
        steps_per_epoch = order.num_steps[0]
        _, full_batch, last_batch = order.batch_sizes
    if order is not None and order.may_differ:
        total_steps = settings.steps or sum(order.num_steps[: settings.epochs])
    else:
        total_steps = settings.steps or (settings.epochs or 0) * steps_per_epoch
    rank_batches = split_evenly(full_batch, world_size)
    save_interval, eval_interval = Interval.parse(settings.save_every), Interval.parse(settings.eval_every)
    if not facts.eval_samples:
        eval_interval = Interval(0, "step")
    return StepPlan(
        world_size=world_size,
        train_samples=facts.train_samples,
        eval_samples=facts.eval_samples,
        global_batch_size=full_batch,
        last_batch_size=last_batch,
        steps_per_epoch=steps_per_epoch,
        total_steps=total_steps,
        rank_batches=rank_batches,
        last_rank_batches=split_evenly(last_batch, world_size),
        micro_batches=tuple(size for size in split_evenly(max(rank_batches), settings.accumulate) if size),
        accumulate=settings.accumulate,
        eval_batch_size=eval_batch,
        eval_interval_steps=_in_steps(eval_interval, steps_per_epoch, order),
        log_interval_steps=settings.log_every,
        save_interval_steps=_in_steps(save_interval, steps_per_epoch, order),
        save_interval_seconds=save_interval.count if save_interval.unit == "second" else 0,
        notes=(),
        order=order,
        eval_global_batch_size=min(batch, samples),
        eval_interval_epochs=_in_epochs(eval_interval, order),
        save_interval_epochs=_in_epochs(save_interval, order),
    )


def _in_steps(interval: Interval, steps_per_epoch: int, order: OrderFacts | None) -> int:
    return 0 if _in_epochs(interval, order) else interval.in_steps(steps_per_epoch)


def _in_epochs(interval: Interval, order: OrderFacts | None) -> int:
    """An interval in epochs if they differ in their steps, otherwise 0."""
    return interval.count if interval.unit == "epoch" and order is not None and order.may_differ else 0


def _notes(spec: JobSpec, facts: Facts, world_size: int) -> list[str]:
    """What is valid but may be surprising."""
    notes = []
    batch, order = spec.data.batch_size, facts.order
    samples = facts.train_samples if order is None else order.samples
    smallest = min(batch, samples)
    if order is not None and order.batch_sizes is not None:
        smallest = order.batch_sizes[0]
    elif batch > samples:
        what = "the dataset" if order is None else "an epoch"
        notes.append(f"data.batch_size {batch} is larger than {what}: each step takes all {samples} samples")
    if smallest < world_size:
        notes.append(
            f"the global batch of {smallest} is smaller than the {world_size} workers: "
            "some ranks have no samples in a step"
        )
    return notes


def with_steps(target: Target, schedule: StepPlan) -> Target:
    """`target` with `$steps` and `$steps_per_epoch` in its args replaced by numbers."""
    numbers = {"$steps": schedule.total_steps, "$steps_per_epoch": schedule.steps_per_epoch}

    def fill(value: Any) -> Any:
        if isinstance(value, str):
            return numbers.get(value, value)
        if isinstance(value, Mapping):
            return {key: fill(item) for key, item in value.items()}
        if isinstance(value, list):
            return [fill(item) for item in value]
        return value

    return target.model_copy(update={"args": fill(target.args)})
