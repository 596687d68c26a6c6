"""A script's loop over batches: a `Loop` like that of a job, whose steps run in the body of a `for` statement."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from distrib.job.step_plan import StepPlan, part_of
from distrib.train.data.batches import to_device
from distrib.train.data.loader import Fetcher, StepBatch, StepLoader
from distrib.train.data.order import Order
from distrib.train.data.order_check import OrderCheck
from distrib.train.data.sampler import EpochIndices, GlobalBatchSampler
from distrib.train.data.target_order import OrderError
from distrib.train.objective.batch_norm import as_stand_in, find_batch_norms
from distrib.train.rank import Rank
from distrib.train.script.engine import ScriptEngine
from distrib.train.script.options import LoopOptions, check_count, check_dataset
from distrib.train.script.orders import order_problem
from distrib.train.session.minimize import Slice


class ScriptLoop:
    """One loop of `session.batches`, from the step at which the run is.

    Args:
        engine: The parts of the training.
        options: The loop's dataset and sizes.
        order: The order of its samples.
        plan: Its steps.
        seed: Of its samples and steps.

    Attributes:
        part: This rank's part of the present global batch.
        is_broken_off: Whether its body was left before the loop's end.
    """

    def __init__(self, engine: ScriptEngine, options: LoopOptions, order: Order, plan: StepPlan, seed: int) -> None:
        rank = engine.rank
        sampler = GlobalBatchSampler(options.dataset, order, num_replicas=rank.info.world_size, rank=rank.info.rank)
        fetcher = Fetcher(options.dataset, options.collate, seed)
        first_step = engine.state.completed_steps - engine.steps.first_step
        self._engine = engine
        check = OrderCheck(order, rank.control_group)
        loader = StepLoader(fetcher, sampler, plan, rank.device, options.loader_workers, first_step, check)
        self._loop = engine.loop(loader)
        self._norms = [norm for model in engine.state.models.values() for norm in find_batch_norms(model)]
        self.part = Slice(0, plan.global_batch_size)
        self.is_broken_off = False

    def steps(self) -> Iterator[tuple[StepBatch, Slice]]:
        """The batch of each step, and this rank's part of it."""
        has_ended = False
        while not has_ended:
            try:
                batch = self._loop.begin_step()
            except OrderError as error:
                raise order_problem(error) from error
            (micro_batch,) = batch.micro_batches
            self.part = Slice(micro_batch.num_samples, batch.global_batch_size)
            with as_stand_in(self._norms, micro_batch.num_samples == 0):
                yield batch, self.part
            has_ended = self._loop.end_step()

    def break_off(self) -> None:
        """Ends the loop with the step whose body was left."""
        self._engine.steps.break_off(self._engine.state.completed_steps + 1)
        self._loop.end_step()


def shard_batches(
    rank: Rank, dataset: Any, batch_size: int, collate: Callable[[list[Any]], Any] | None
) -> Iterator[tuple[int, Any]]:
    """A rank's part of a dataset: the samples of each batch, and the batch on its device; see `ScriptSession.shard`.

    Raises:
        UsageError: A value cannot be used.
    """
    check_dataset("session.shard", dataset)
    check_count("session.shard: batch_size", batch_size)
    fetcher = Fetcher(dataset, collate, rank.settings.seed)
    mine = part_of(len(dataset), rank.info.rank, rank.info.world_size)
    size = -(-batch_size // rank.info.world_size)
    slices = (list(mine[start : start + size]) for start in range(0, len(mine), size))
    return (
        (len(indices), to_device(fetcher.__getitems__(EpochIndices(indices, 0)), rank.device)) for indices in slices
    )
