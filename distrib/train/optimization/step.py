"""One optimizer step: forward and backward passes, the exact mean over the global batch, the update."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any, Protocol

import torch
import torch.distributed as dist

from distrib.errors import DistribError, TrainingFailedError
from distrib.job.step_plan import StepPlan
from distrib.train.checkpoint.parts import LOSS, MODEL
from distrib.train.checks.plain_counters import CounterWatch
from distrib.train.data.loader import StepBatch
from distrib.train.data.sampler import MicroBatch
from distrib.train.objective.autograd_graph import parameters_beside
from distrib.train.objective.batch_norm import as_stand_in, find_batch_norms
from distrib.train.objective.task import StepOutput, TaskError
from distrib.train.optimization.mean_gradients import divide_by_weight
from distrib.train.optimization.update_randomness import UpdateRandomness
from distrib.train.phases import Phase
from distrib.train.rank import Rank
from distrib.train.session.minimize import Slice
from distrib.train.training import Training

_MAX_SHOWN = 3


class OutsideParameterError(DistribError):
    """The optimizer has parameters that belong neither to the model nor to the loss."""


class OptimizerStep(Protocol):
    """Runs the steps of a training."""

    def run(
        self, batch: StepBatch, *, is_synced: bool = True, on_gradients: Callable[[], object] = lambda: None
    ) -> None:
        """Runs one optimizer step; see `TrainStep.run`."""


class TrainStep:
    """Computes each step's gradient as the weighted mean over all ranks and micro-batches, and applies it.

    With L the loss of a micro-batch, w its weight and W the number of ranks, backward runs on L·w·c and the strategy
    averages over ranks, which gives c·Σ(w·∇L)/W. Where weights are numbers of samples, c = W/m with m the samples of
    the global batch: the mean at once. Otherwise c = W/B with B the plan's batch, which keeps the scale of fp16, and
    gradients are multiplied by B/Σw, Σw being summed over the ranks beside the last backward pass. If a rank announces
    that its weight is not its number of samples in this step, gradients are multiplied by m/Σw. A loss that is known
    to be a sum is the mean times the number of its samples, and counts as the sum over the global batch, m means.

    Args:
        rank: This rank.
        training: What is trained.
        step_plan: The sizes of batches.
    """

    def __init__(self, rank: Rank, training: Training, step_plan: StepPlan) -> None:
        self._task = training.task
        self._state = training.state
        self._precision = training.precision
        self._losses = training.losses
        self._step_plan = step_plan
        self._clip_norm = rank.settings.clip_norm
        self._randomness = UpdateRandomness(self._state, rank.settings.seed, rank.info.rank)
        self._control_group = rank.control_group
        self._device = rank.device
        self._weighting = training.weighting
        self._parameters = [parameter for model in self._state.models.values() for parameter in model.parameters()]
        self._norms = find_batch_norms(self._state.model)
        self._session = training.session
        self._times = rank.times
        self._times.watch(self._parameters)
        self._progress = rank.progress
        self._is_first = True
        self._counters = CounterWatch(self._state.models) if self._state.completed_steps == 0 else None
        self._trainable: list[bool] = []

    def run(
        self, batch: StepBatch, *, is_synced: bool = True, on_gradients: Callable[[], object] = lambda: None
    ) -> None:
        """Runs one optimizer step.

        Args:
            batch: The batches of the step.
            is_synced: If false, each rank computes a gradient of its own and drops it: for measuring, not for training.
            on_gradients: Called between the last backward pass and the update.
        """
        self._state.rewrap_outdated()
        self._forward_backward(batch, is_synced)
        on_gradients()
        if is_synced:
            self._update()
        if self._counters is not None:
            self._weighting.warnings += self._counters.look()
            self._counters = None if self._counters.is_done else self._counters
        for parameter in self._parameters:
            parameter.grad = None

    def _forward_backward(self, batch: StepBatch, is_synced: bool) -> None:
        """Leaves the gradient of the global batch's mean loss in the parameters, the same on every rank."""
        strategy, wrapped = self._state.strategy, self._state.wrapped
        total = torch.zeros((), dtype=torch.float64, device=self._device)
        pending: Any = None
        last = len(batch.batches) - 1
        for number, (part, data) in enumerate(zip(batch.micro_batches, batch.batches, strict=True)):
            is_last = number == last
            with ExitStack() as stack:
                if not (is_last and is_synced):
                    for model in wrapped.values():
                        stack.enter_context(strategy.without_sync(model))
                self._progress.enter(Phase.FORWARD)
                if self._session is not None:
                    slice_ = Slice(part.num_samples, batch.global_batch_size)
                    self._session.begin(slice_, epoch=batch.epoch)
                with self._precision.autocast(), as_stand_in(self._norms, part.num_samples == 0):
                    output = self._task.run(
                        wrapped[MODEL], data, wrapped.get(LOSS), counts_targets=self._weighting.counts_targets
                    )
                if self._session is not None:
                    self._session.output = output
                    self._session.session.log(**output.logged)
                weight = self._weight(output, part, batch.global_step + 1)
                if isinstance(weight, torch.Tensor):
                    total += weight
                    if is_last and self._step_plan.world_size > 1:
                        pending = dist.all_reduce(total, async_op=True)
                if last:
                    self._check_trainable(is_first=number == 0)
                self._backward(output, weight, batch, is_synced=is_last and is_synced)
        self._finish_backward(pending, is_synced)
        if self._weighting.is_weighted:
            self._losses.add_total(total)
            if not self._is_whole(batch):
                divide_by_weight(self._gradients(), total, self._step_plan.global_batch_size)
        elif is_synced and self._weighting.is_uneven(batch.global_step + 1):
            total += weight
            dist.all_reduce(total)
            divide_by_weight(self._gradients(), total, batch.global_batch_size)

    def _finish_backward(self, pending: Any, is_synced: bool) -> None:
        """Waits until what the ranks sum is complete."""
        if is_synced:
            for name in self._state.wrapped:
                self._state.strategy.finish_backward(name)
        if pending is not None:
            pending.wait()
        if is_synced:
            self._times.end_backward()

    def _is_whole(self, batch: StepBatch) -> bool:
        """Whether the global batch is this rank's only micro-batch, whose mean is that of the step at once."""
        return self._step_plan.world_size == 1 and len(batch.batches) == 1

    def _weight(self, output: StepOutput, part: MicroBatch, step: int) -> torch.Tensor | float:
        """The micro-batch's weight; in the first step, looks at what the loss reaches too."""
        weight = self._weighting.weight(output, part, step)
        if self._is_first:
            self._is_first = False
            if any(parameter.grad is not None for parameter in self._parameters):
                raise TaskError(
                    "the job's code has run a backward pass itself, and its gradients would count twice; return the "
                    "loss only, or call session.minimize in a step(model, batch, session)"
                )
            if not output.loss.requires_grad:
                raise TaskError(
                    "the loss reaches no parameter that is trained: it was detached or computed under no_grad, or all "
                    "parameters are frozen"
                )
            self._check_reach(output.loss)
            if self._weighting.is_weighted:
                self._losses.use_weights()
        return weight

    def _check_trainable(self, *, is_first: bool) -> None:
        """Refuses to freeze or unfreeze parameters between the micro-batches of a step: which samples do they see?"""
        trainable = [parameter.requires_grad for parameter in self._parameters]
        if not is_first and trainable != self._trainable:
            raise TrainingFailedError(
                "parameters were frozen or unfrozen between the micro-batches of a step, so that their gradient would "
                "depend on train.accumulate and the number of workers; do it in the first forward pass of a step"
            )
        self._trainable = trainable

    def _check_reach(self, loss: torch.Tensor) -> None:
        """Reports parameters outside of model and loss, which nothing trains, synchronizes or saves."""
        outside = parameters_beside(loss, self._parameters)
        if not outside:
            return
        shapes = ", ".join(str(tuple(parameter.shape)) for parameter in outside[:_MAX_SHOWN])
        what = f"{len(outside)} parameter(s) of shape {shapes} that belong neither to the model nor to a loss module"
        advice = "make them part of the model, before its first forward pass, or of a loss that is a module"
        groups = [group for each in self._state.optimizers.values() for group in each.param_groups]
        taken = {id(parameter) for group in groups for parameter in group["params"]}
        if any(id(parameter) in taken for parameter in outside):
            raise OutsideParameterError(f"optimizer: it has {what}, so ranks cannot synchronize or save them; {advice}")
        self._weighting.warnings.append(f"the loss reaches {what}: they are neither trained nor saved; {advice}")

    def _backward(self, output: StepOutput, weight: torch.Tensor | float, batch: StepBatch, *, is_synced: bool) -> None:
        """Runs the backward pass of a micro-batch and adds its loss to the step's."""
        world_size, num_samples = self._step_plan.world_size, batch.global_batch_size
        mean = output.loss
        if self._task.form.is_sum and isinstance(weight, int) and weight:
            mean = mean * (num_samples / weight)
        self._losses.add(mean.detach(), weight)
        if not isinstance(weight, torch.Tensor):
            loss = mean * (weight * (world_size / num_samples))
        elif self._is_whole(batch):
            loss = mean * (weight > 0).to(mean.dtype)
        else:
            loss = mean * (weight * (world_size / self._step_plan.global_batch_size)).to(mean.dtype)
        weighing = nullcontext() if self._session is None else self._session.weighing(weight)
        scaled = self._precision.scaler.scale(loss)
        self._progress.enter(Phase.BACKWARD)
        if is_synced:
            self._times.begin_backward(scaled)
        with self._zero_gradients_of_zero_weight(weight), weighing:
            scaled.backward()  # type: ignore[no-untyped-call]

    def _update(self) -> None:
        """Unscales and clips the gradients and steps the optimizers."""
        self._progress.enter(Phase.OPTIMIZER)
        scaler, optimizers = self._precision.scaler, self._state.optimizers.values()
        if self._clip_norm is not None:
            for optimizer in optimizers:
                scaler.unscale_(optimizer)
            self._state.strategy.clip(self._parameters, self._clip_norm)
        with self._randomness.shared(optimizers):
            for optimizer in optimizers:
                scaler.step(optimizer)
        scaler.update()

    @contextmanager
    def _zero_gradients_of_zero_weight(self, weight: torch.Tensor | float) -> Iterator[None]:
        """Around a backward pass: if `weight` is 0, gradients are too, on CPU even those of 0/0, which are NaN."""
        is_silenced = self._device.type == "cpu" and float(weight) == 0
        silenced = [parameter for parameter in self._parameters if is_silenced and parameter.requires_grad]
        hooks = [parameter.register_hook(torch.zeros_like) for parameter in silenced]  # type: ignore[no-untyped-call]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _gradients(self) -> list[torch.Tensor]:
        return [parameter.grad for parameter in self._parameters if parameter.grad is not None]
