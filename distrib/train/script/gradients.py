"""Gradients that a script accumulates with `backward` and applies with `update`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import nn

from distrib.train.optimization.mean_gradients import divide_by_weight, total_weight
from distrib.train.optimization.precision import Precision
from distrib.train.optimization.update_randomness import UpdateRandomness
from distrib.train.script.errors import UsageError
from distrib.train.session.minimize import Slice, read_weight
from distrib.train.session.reduction import GradientReducer
from distrib.train.state import TrainingState


class ScriptGradients:
    """Accumulates the gradients of global means in the parameters, as `loss.backward()` does those of one process.

    Each call adds the gradient of a global mean: with L_r the loss of rank r and w_r its weight, Σ w_r·L_r / Σ w_r.
    Without weights w_r is the number of the rank's samples, and calls add up. With weights, all calls before an update
    make up one mean, as for micro-batches.

    Args:
        state: The models and optimizers.
        precision: The gradient scaler.
        reducer: Sums gradients over the ranks.
        randomness: The random numbers of updates.
    """

    def __init__(
        self, state: TrainingState, precision: Precision, reducer: GradientReducer, randomness: UpdateRandomness
    ) -> None:
        self._state = state
        self._precision = precision
        self._reducer = reducer
        self._randomness = randomness
        self._unsynced: set[int] = set()
        self._carried: dict[torch.Tensor, torch.Tensor] = {}
        self._weight: torch.Tensor | None = None
        self._total: torch.Tensor | None = None
        self._num_samples = 0
        self._is_weighted: bool | None = None
        self._has_updated = False
        self._scaler_is_due = False

    @contextmanager
    def no_sync(self, model: nn.Module) -> Iterator[None]:
        """Keeps gradients of the model's parameters on their rank, until a pass outside adds them over the ranks."""
        added = {id(parameter) for parameter in model.parameters()} - self._unsynced
        self._unsynced |= added
        try:
            yield
        finally:
            self._unsynced -= added

    def backward(self, loss: torch.Tensor, weight: torch.Tensor | float | None, part: Slice) -> None:
        """Adds this rank's share of a mean to the gradients of all models."""
        self._begin(weight, part)
        mine: torch.Tensor | float = part.num_samples
        if weight is not None:
            mine = read_weight(weight, loss, part)
            self._weight = mine if self._weight is None else self._weight + mine
        factor = mine.to(loss.dtype) if isinstance(mine, torch.Tensor) else mine
        scaled = self._precision.scaler.scale(loss * factor / self._num_samples)
        parameters = [p for model in self._state.models.values() for p in model.parameters() if p.requires_grad]
        if self._unsynced and dist.get_world_size() > 1:
            self._carry(scaled, parameters, mine)
            return
        before = [None if p.grad is None else p.grad.clone() for p in parameters]
        carried = {n: self._carried.pop(p) for n, p in enumerate(parameters) if p in self._carried}
        found = self._reducer.sum_gradients(scaled, parameters, mine, compute=_all_gradients, carried=carried)
        for parameter, old, new in zip(parameters, before, found, strict=True):
            parameter.grad = old if new is None else new if old is None else old + new

    def _carry(self, loss: torch.Tensor, parameters: Sequence[torch.Tensor], weight: torch.Tensor | float) -> None:
        """Runs a backward pass whose gradients stay on this rank for now."""
        kept = [parameter.grad for parameter in parameters]
        found = self._reducer.own_gradients(loss, parameters, weight, compute=_all_gradients)
        for parameter, new in zip(parameters, found, strict=True):
            if new is not None:
                old = self._carried.get(parameter)
                self._carried[parameter] = new if old is None else old + new
        for parameter, gradient in zip(parameters, kept, strict=True):
            parameter.grad = gradient

    def _begin(self, weight: torch.Tensor | float | None, part: Slice) -> None:
        """Begins another mean if the last one has been applied.

        Weighted sums are divided by the samples of their first global batch, and in the end by their weight instead.
        """
        if self._scaler_is_due:
            self._precision.scaler.update()
            self._scaler_is_due = False
        if self._has_updated:
            self._weight = self._total = self._is_weighted = None
            self._has_updated = False
        if self._is_weighted is not None and self._is_weighted != (weight is not None):
            raise UsageError("session.backward: give a weight in every call before an update, or in none")
        if self._is_weighted is None or weight is None:
            self._num_samples = part.batch_size
        self._is_weighted = weight is not None

    def check_own_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Refuses a step that the script takes itself with gradients that `update` would still change.

        Raises:
            UsageError: They are scaled, or sums of weighted ones, or on their ranks.
        """
        self._check_carried(optimizer)
        is_open = self._is_weighted is not None and not self._has_updated
        if is_open and (self._is_weighted or self._precision.is_scaled):
            why = "divides the sums of weighted gradients" if self._is_weighted else "undoes the scaling of fp16"
            raise UsageError(f"optimizer.step: call session.update(optimizer) instead, which {why}")

    def _check_carried(self, optimizer: torch.optim.Optimizer) -> None:
        if any(parameter in self._carried for group in optimizer.param_groups for parameter in group["params"]):
            raise UsageError(
                "session.update: gradients were accumulated under session.no_sync and never added over the ranks; run "
                "the last backward pass before an update outside of it"
            )

    def update(self, optimizer: torch.optim.Optimizer, clip_norm: float | None) -> torch.Tensor | None:
        """Applies the gradients; returns the weight of the mean over all ranks if calls of `backward` gave weights."""
        self._check_carried(optimizer)
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        if self._weight is not None:
            self._divide(parameters)
        scaler = self._precision.scaler
        if clip_norm is not None:
            scaler.unscale_(optimizer)
            self._state.strategy.clip(parameters, clip_norm)
        with self._randomness.shared([optimizer]):
            scaler.step(optimizer)
        self._scaler_is_due = self._has_updated = True
        return self._total

    def _divide(self, parameters: Sequence[torch.Tensor]) -> None:
        """Turns sums of weighted gradients into means."""
        if self._total is None:
            assert self._weight is not None
            self._total = total_weight(self._weight)
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        divide_by_weight(gradients, self._total, self._num_samples)

    def end_step(self) -> None:
        """Updates the scaler after the step's updates."""
        if self._scaler_is_due:
            self._precision.scaler.update()
            self._scaler_is_due = False


def _all_gradients(loss: torch.Tensor, parameters: Sequence[torch.Tensor]) -> list[torch.Tensor | None]:
    """The gradients of `parameters` by a whole backward pass, which computes those of other tensors too."""
    for parameter in parameters:
        parameter.grad = None
    if loss.requires_grad:
        loss.backward()  # type: ignore[no-untyped-call]
    found = [parameter.grad for parameter in parameters]
    for parameter in parameters:
        parameter.grad = None
    return found
