"""The session of a script: the script keeps its loop, and its batches, updates and checkpoints are those of a job."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn

from distrib.compat.torchmetrics_states import metrics_of
from distrib.train.data.target_order import OrderFunction
from distrib.train.health.spot_sample import SpotSample
from distrib.train.objective.metrics import compute_metrics
from distrib.train.objective.task import TaskError
from distrib.train.process.randomness import derive_seed
from distrib.train.process.rank_tree import RankTree
from distrib.train.rank import Rank
from distrib.train.script.code import script_mentions
from distrib.train.script.engine import ScriptEngine
from distrib.train.script.errors import UsageError
from distrib.train.script.gradients import ScriptGradients
from distrib.train.script.loop import ScriptLoop, shard_batches
from distrib.train.script.options import LoopOptions, SessionOptions, parse_interval
from distrib.train.script.setup import ModelSetup
from distrib.train.session.minimize import Slice, read_loss
from distrib.train.session.session import Session, SessionRules

Kept = TypeVar("Kept")


class ScriptSession(Session):
    """A script's training, as `distrib.session` returns it; see `Session` for what steps of jobs have too.

    Args:
        rank: This rank.
        options: The arguments of `distrib.session`.
        engine: The parts of the training.
    """

    def __init__(self, rank: Rank, options: SessionOptions, engine: ScriptEngine) -> None:
        super().__init__(rank, engine.state, engine.precision, SessionRules(may_stop=script_mentions("stop")))
        self.options = options
        self._engine = engine
        self._whole = self._slice = Slice(1, self.world_size)
        self._logs[False] = self._logs[True]  # a script has no evaluations of the engine's, whose event would take them
        self._setup = ModelSetup(engine.state, self.device, RankTree(rank.control_group), is_resumed=engine.is_resumed)
        self._gradients = ScriptGradients(engine.state, engine.precision, self._make_reducer(rank), self._randomness)
        self._loop: ScriptLoop | None = None
        self._is_in_call = False

    @property
    def completed_steps(self) -> int:
        """Steps of the whole run that are done; within the body of a loop, those before the present one."""
        return self._engine.state.completed_steps + (self._loop is not None and self._loop.is_broken_off)

    def setup(self, model: nn.Module, *optimizers: torch.optim.Optimizer, name: str = "model") -> Any:
        """Makes a model and its optimizers part of the training: on this rank's device, equal on all ranks, restored.

        Args:
            model: Not wrapped in DistributedDataParallel.
            optimizers: Those that update its parameters.
            name: Unique among the models; part of checkpoints.

        Returns:
            The model; with optimizers, a tuple of it and them.

        Raises:
            UsageError: A loop has begun, or something cannot be set up.
        """
        if self._engine.has_begun:
            raise UsageError("session.setup: a loop of session.batches has begun; set everything up before it")
        self._setup.add(model, optimizers, name)
        for optimizer in optimizers:
            optimizer.register_step_pre_hook(self._check_step)
        return (model, *optimizers) if optimizers else model

    def batches(
        self,
        dataset: Any,
        *,
        batch_size: int,
        epochs: int | None = None,
        steps: int | None = None,
        order: str | OrderFunction = "shuffle",
        collate: Callable[[list[Any]], Any] | None = None,
        loader_workers: int = 0,
    ) -> Iterator[Any]:
        """This rank's part of each global batch, on its device; the end of the loop's body is the end of a step.

        A restarted run continues at the step after its newest checkpoint; loops that had ended yield nothing. A `break`
        on all ranks ends the loop with the present step.

        Args:
            dataset: A map-style dataset, the same on all ranks.
            batch_size: Samples of a global batch, whatever the number of ranks.
            epochs: Passes over the dataset.
            steps: The number of steps instead.
            order: `shuffle`, `sequential`, or a function of (dataset, epoch, seed) that returns the indices of an
                epoch, or lists of indices, each list one global batch; or the name of one, as `module:function`. An
                object with `num_steps(dataset, epoch, seed)` too may have epochs of different lengths.
            collate: Makes a batch of samples; by default PyTorch's own.
            loader_workers: Processes that fetch samples on this rank.

        Raises:
            UsageError: A value cannot be used, or the loop is within another one.
            Stopped: The run was requested to stop, and its checkpoint is committed.
        """
        options = LoopOptions(
            dataset=dataset,
            batch_size=batch_size,
            epochs=epochs,
            steps=steps,
            order=order,
            collate=collate,
            loader_workers=loader_workers,
        )
        options.check()
        if self._loop is not None and not self._loop.is_broken_off:
            raise UsageError("session.batches: called within another loop of session.batches; loops do not nest")
        self._end_broken_loop()
        seed = self._engine.next_seed()
        samples = options.make_order(seed)
        plan = options.plan(self.options, samples, self.world_size)
        self._engine.begin(self, is_ever_saved=plan.is_ever_saved)
        sample = SpotSample(dataset, derive_seed("spot check", seed) % len(dataset), seed)
        if not self._engine.begin_loop(plan, options.order_name, sample):
            self._engine.end_loop(self._engine.steps.total_steps)
            return iter(())
        self._loop = ScriptLoop(self._engine, options, samples, plan, seed)
        return self._run(self._loop)

    def _run(self, loop: ScriptLoop) -> Iterator[Any]:
        try:
            for batch, part in loop.steps():
                self._slice, self.is_training, self.epoch, self._losses = part, True, batch.epoch, []
                yield batch.batches[0]
                self._close_step(part)
        except GeneratorExit:
            loop.is_broken_off = True  # or an exception has left the body: then the session is not used again
            self._engine.end_loop(self._engine.state.completed_steps + 1)
            raise
        self._loop = None
        self._engine.check_stopped()
        self._engine.end_loop(self._engine.state.completed_steps)

    def _close_step(self, part: Slice) -> None:
        """Ends what the body of a loop has done, before the boundary of the step."""
        self._gradients.end_step()
        losses, self._losses = self._losses, []
        self._engine.add_losses(losses, part)
        self._slice, self.is_training = self._whole, True

    def _end_broken_loop(self) -> None:
        """Does what is due at the end of a step that was left with `break`."""
        loop = self._loop
        if loop is None or not loop.is_broken_off:
            return
        self._loop = None
        self._close_step(loop.part)
        loop.break_off()
        self._engine.check_stopped()

    def shard(
        self, dataset: Any, *, batch_size: int, collate: Callable[[list[Any]], Any] | None = None
    ) -> Iterator[Any]:
        """This rank's part of a dataset in order, in batches, for evaluation: each row on one rank, without padding.

        All ranks call it, and begin with rank 0's buffers, such as the statistics of BatchNorm. They may have other
        numbers of batches, so do not communicate within the loop. `sum` and `compute` after it are over all ranks.

        Args:
            dataset: A map-style dataset.
            batch_size: Samples of all ranks' batches together.
            collate: Makes a batch of samples; by default PyTorch's own.

        Raises:
            UsageError: A value cannot be used.
        """
        batches = shard_batches(self._engine.rank, dataset, batch_size, collate)
        with self._collective("shard"):
            self._engine.state.sync_buffers()
        self._slice = self._whole
        return self._evaluating(batches)

    def _evaluating(self, batches: Iterator[tuple[int, Any]]) -> Iterator[Any]:
        self.is_training = False
        try:
            for num_samples, batch in batches:
                self._slice = Slice(num_samples, num_samples)
                yield batch
        finally:
            self._slice, self.is_training = self._whole, True

    @property
    def _trained_part(self) -> Slice:
        """The present step's, even if an evaluation has come between."""
        return self._slice if self._loop is None or self._loop.is_broken_off else self._loop.part

    def backward(self, loss: torch.Tensor, weight: torch.Tensor | float | None = None) -> torch.Tensor:
        """Adds the gradient of the mean loss over the global batch to that of each parameter, the same on all ranks.

        Args:
            loss: The mean loss over this rank's samples.
            weight: What the loss is a mean over, such as a number of tokens; by default the number of samples. With
                weights, all calls before an update make up one mean, as for micro-batches.

        Returns:
            This rank's loss, detached.

        Raises:
            TaskError: The loss or the weight cannot be used.
        """
        with self._collective("backward"):
            value = read_loss(loss)
            if self.is_training:
                self._gradients.backward(value, weight, self._trained_part)
        self._losses.append((value.detach(), weight))
        return value.detach()

    def update(self, optimizer: torch.optim.Optimizer, clip_norm: float | None = None) -> None:
        """Applies the gradients that `backward` has added; they stay until `optimizer.zero_grad()`.

        Args:
            optimizer: One that was set up.
            clip_norm: Clips the 2-norm of the optimizer's gradients to this value.

        Raises:
            TaskError: It was not set up, or gradients are still on their ranks.
        """
        with self._collective("update"):
            if not any(optimizer is each for each in self._engine.state.optimizers.values()):
                raise UsageError("session.update: the optimizer was not set up; pass it to session.setup")
            if self.is_training:
                total = self._gradients.update(optimizer, clip_norm)
                if total is not None:
                    self._engine.losses.add_total(total)

    def autocast(self) -> AbstractContextManager[object]:
        """The context of a forward pass in the session's precision."""
        return self._engine.precision.autocast()

    def no_sync(self, model: nn.Module) -> AbstractContextManager[None]:
        """Within it `backward` keeps gradients on their rank; the next pass outside adds them over the ranks."""
        return self._gradients.no_sync(model)

    def is_due(self, interval: str) -> bool:
        """Whether something is due at the end of the present step: at every interval and at the end of the loop.

        Args:
            interval: `100 steps` or `1 epoch`.

        Raises:
            UsageError: It is no interval, or no loop runs.
        """
        parsed = parse_interval(interval)
        if self._loop is None or self._loop.is_broken_off:
            raise UsageError("session.is_due: needs a step of a loop of session.batches")
        return self._engine.steps.is_due(parsed.count, parsed.unit, self._engine.state.completed_steps + 1)

    def compute(self, metric: Any) -> Any:
        """The value of a torchmetrics metric over all ranks, as plain numbers; the metric itself stays as it is."""
        with self._collective("compute"):
            own = copy.deepcopy(metric)
            is_updated = any(part.update_called for part in metrics_of(own))
            group = self._engine.rank.control_group
            return compute_metrics({"metric": own}, int(is_updated), group)["metric"]

    def keep(self, name: str, value: Kept, per_rank: bool = False) -> Kept:
        """As `Session.keep`; restores a learning-rate scheduler with the values that building it has overwritten."""
        kept = super().keep(name, value, per_rank)
        if isinstance(kept, torch.optim.lr_scheduler.LRScheduler):
            self._setup.restore_values(kept.optimizer)
        return kept

    def finish(self) -> None:
        """Called by distrib once the script has ended.

        Raises:
            Stopped: The run was requested to stop.
        """
        if self._loop is not None:
            self._loop.is_broken_off = True
        if not dist.is_initialized():
            raise TaskError(
                "the script has called destroy_process_group, but its session needs it to the end; remove the call"
            )
        self._end_broken_loop()
        models = self._engine.state.models
        self._engine.finish(
            next(iter(models.values())) if len(models) == 1 else nn.ModuleDict(models), self._logs[True]
        )

    def close(self, *, has_failed: bool) -> None:
        """Called by distrib at the very end: publishes this rank's output."""
        self._engine.rank.storage.close(has_failed=has_failed)

    def _check_step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        """Called before each step of an optimizer, those that the session takes included."""
        if not self._is_in_call:
            self._gradients.check_own_step(optimizer)

    @contextmanager
    def _collective(self, name: str) -> Iterator[None]:
        self._end_broken_loop()
        outer, self._is_in_call = self._is_in_call, True
        try:
            with super()._collective(name):
                yield
        finally:
            self._is_in_call = outer
