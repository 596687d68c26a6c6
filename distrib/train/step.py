"""One optimizer step: forward and backward passes, the exact mean over the global batch, the update."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from distrib.compat.torch_tensors import multiply_
from distrib.errors import DistribError
from distrib.job.plan import StepPlan
from distrib.train.control import gather_rows
from distrib.train.data.loader import StepBatch
from distrib.train.loss_accumulator import LossAccumulator
from distrib.train.precision import Precision
from distrib.train.strategy.ddp import find_batch_norms, without_sync
from distrib.train.task import StepOutput, Task


class WeightError(DistribError):
    """The user's step gave weights sometimes, or a weight that cannot be one."""


class TrainStep:
    """Computes each step's gradient as the weighted mean over all ranks and micro-batches, and applies it.

    With L the loss of a micro-batch, w its weight and W the number of ranks, backward runs on L·w·c and DDP averages
    over ranks, which gives c·Σ(w·∇L)/W. Where weights are numbers of samples, c = W/m with m the samples of the global
    batch: the mean at once. Otherwise c = W/B with B the plan's batch, which keeps the scale of fp16, and gradients are
    multiplied by B/Σw, Σw being summed over the ranks beside the last backward pass.
    """

    def __init__(
        self,
        task: Task,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        precision: Precision,
        schedule: StepPlan,
        clip_norm: float | None,
    ) -> None:
        self._task = task
        self._model = model
        self._optimizer = optimizer
        self._precision = precision
        self._schedule = schedule
        self._clip_norm = clip_norm
        self._parameters = [parameter for parameter in task.model.parameters() if parameter.requires_grad]
        self._device = self._parameters[0].device
        self._norms = find_batch_norms(task.model)
        self.is_weighted = False

    def warm_up(self, batch: StepBatch, control: dist.ProcessGroup) -> None:
        """Runs one forward and backward pass and discards it, so that every step of every start sums in one order.

        DDP rebuilds its buckets after the first backward pass; without this, the first step after a resume would
        reduce gradients in another order than the uninterrupted run did. Learns too whether the step gives weights.
        """
        buffers = copy.deepcopy(list(self._task.model.buffers()))
        is_stand_in = batch.micro_batches[0].num_samples == 0
        with self._precision.autocast(), self._as_stand_in(is_stand_in):
            outcome = self._task.run(self._model, batch.batches[0])
        (outcome.loss * 0.0).backward()  # type: ignore[no-untyped-call]
        self._task.model.zero_grad()
        with torch.no_grad():
            for buffer, before in zip(self._task.model.buffers(), buffers, strict=True):
                buffer.copy_(before)
        rows = gather_rows([float(outcome.weight is not None)], control)
        self.is_weighted = any(row[0] for row in rows)
        if self.is_weighted and outcome.weight is None:
            raise WeightError("step: gave no weight on this rank, but did on another; give a weight always or never")

    @property
    def model(self) -> nn.Module:
        """The model as it is run: wrapped, where there are other ranks."""
        return self._model

    def forward_backward(self, batch: StepBatch, ledger: LossAccumulator, *, is_synced: bool = True) -> None:
        """Leaves the gradient of the global batch's mean loss in the parameters, the same on every rank.

        Where `is_synced` is false, each rank keeps a gradient of its own: for measuring, never for training.
        """
        samples = self._schedule.batch_size_at(batch.step)
        world_size = self._schedule.world_size
        scale = world_size / (self._schedule.global_batch_size if self.is_weighted else samples)
        total = torch.zeros((), dtype=torch.float64, device=self._device)
        pending: Any = None
        last = len(batch.batches) - 1
        for number, (part, data) in enumerate(zip(batch.micro_batches, batch.batches, strict=True)):
            with nullcontext() if number == last and is_synced else without_sync(self._model):
                with self._precision.autocast(), self._as_stand_in(part.num_samples == 0):
                    outcome = self._task.run(self._model, data)
                weight = None
                if not self.is_weighted:
                    ledger.add(outcome.loss.detach(), part.num_samples)
                    loss = outcome.loss * (part.num_samples * scale)
                else:
                    weight = self._weight(outcome, counts=part.num_samples > 0)
                    ledger.add(outcome.loss.detach(), weight)
                    total += weight
                    loss = outcome.loss * (weight * scale).to(outcome.loss.dtype)
                    if number == last and world_size > 1:
                        pending = dist.all_reduce(total, async_op=True)
                with self._without_gradients_of_nothing(weight):
                    self._precision.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        if self.is_weighted:
            if pending is not None:
                pending.wait()
            ledger.add_total(total)
            self._divide_by(total)

    def update(self) -> None:
        """Unscales and clips the gradients, steps the optimizer and clears all gradients, its own or not."""
        scaler = self._precision.scaler
        if self._clip_norm is not None:
            scaler.unscale_(self._optimizer)
            torch.nn.utils.clip_grad_norm_(self._parameters, self._clip_norm)
        scaler.step(self._optimizer)
        scaler.update()
        self._task.model.zero_grad()

    @contextmanager
    def _as_stand_in(self, is_stand_in: bool) -> Iterator[None]:
        """Around the forward pass of a sample that does not count: it leaves BatchNorm's statistics alone."""
        norms = [norm for norm in self._norms if is_stand_in and norm.training]
        for norm in norms:
            norm.training = False
        try:
            yield
        finally:
            for norm in norms:
                norm.training = True

    def _weight(self, outcome: StepOutput, counts: bool) -> torch.Tensor:
        """The micro-batch's weight as a float64 scalar on the device."""
        if outcome.weight is None:
            raise WeightError("step: gave no weight this time, but did at first; give a weight always or never")
        weight = torch.as_tensor(outcome.weight, dtype=torch.float64, device=self._device)
        if weight.device.type == "cpu" and not 0 <= float(weight) < float("inf"):
            raise WeightError(f"step: gave the weight {float(weight)}; a weight is a count, finite and not below 0")
        return weight if counts else torch.zeros_like(weight)

    @contextmanager
    def _without_gradients_of_nothing(self, weight: torch.Tensor | None) -> Iterator[None]:
        """Around a backward pass: where `weight` is 0, gradients are too, on CPU even those of 0/0, which are NaN."""
        is_weightless = weight is not None and self._device.type == "cpu" and float(weight) == 0
        silenced = self._parameters if is_weightless else []
        hooks = [parameter.register_hook(torch.zeros_like) for parameter in silenced]  # type: ignore[no-untyped-call]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _divide_by(self, total: torch.Tensor) -> None:
        """Turns gradients of the sum into those of the mean; where nothing has weight, they are zero already."""
        batch_size = self._schedule.global_batch_size
        factor = torch.where(total > 0, batch_size / total, 0.0)
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        multiply_(gradients, factor)
