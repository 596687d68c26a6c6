"""One update along the gradient of the global batch's mean, exact over ranks and uneven slices."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import nn

from distrib.train.objective.task import TaskError
from distrib.train.optimization.mean_gradients import divide_by_weight, total_weight
from distrib.train.optimization.precision import Precision
from distrib.train.optimization.update_randomness import UpdateRandomness
from distrib.train.process.rank_tree import RankTree
from distrib.train.session.reduction import GradientReducer
from distrib.train.state import TrainingState

if TYPE_CHECKING:
    from collections.abc import Iterator

Loss = torch.Tensor | Callable[[], torch.Tensor]


@dataclass(frozen=True)
class Slice:
    """A rank's part of a global batch.

    Attributes:
        num_samples: Samples that count on this rank; 0 if it runs a stand-in.
        batch_size: Samples of the global batch.
    """

    num_samples: int
    batch_size: int


@dataclass(frozen=True)
class _Update:
    """What one call of `minimize` updates.

    Attributes:
        optimizers: By name.
        parameters: Those that may be updated, the same on all ranks.
    """

    optimizers: dict[str, torch.optim.Optimizer]
    parameters: list[torch.Tensor]


class Minimizer:
    """Updates parameters along the gradient of the weighted mean of all ranks' losses.

    With L_r the loss of rank r and w_r its weight, backward runs on L_r·w_r/B with B the size of the global batch, and
    the sum over the ranks is multiplied by B/Σw. Without a weight w_r is the number of the rank's samples, and Σw is B.

    Args:
        state: The models and optimizers.
        precision: The gradient scalers.
        reducer: Sums gradients over the ranks.
        randomness: The random numbers of updates.
        control_group: A gloo group of all ranks.
        clip_norm: The largest norm of an update's gradients, or None.
    """

    def __init__(
        self,
        state: TrainingState,
        precision: Precision,
        reducer: GradientReducer,
        randomness: UpdateRandomness,
        control_group: dist.ProcessGroup,
        clip_norm: float | None,
    ) -> None:
        self._state = state
        self._precision = precision
        self._reducer = reducer
        self._randomness = randomness
        self._tree = RankTree(control_group)
        self._clip_norm = clip_norm

    def minimize(
        self, loss: Loss, of: Any, optimizer: Any, weight: torch.Tensor | float | None, part: Slice
    ) -> torch.Tensor:
        """Updates once and returns this rank's loss; see `Session.minimize`."""
        update = self._choose(of, optimizer)
        if not isinstance(loss, torch.Tensor):
            return self._minimize_function(loss, update, weight, part)
        name = "+".join(update.optimizers)
        scaler = self._precision.scaler_of(name)
        with self._precision.autocast(enabled=False):
            gradients = self._mean_gradients(loss, update, weight, part, scaler)
            with _only(update, gradients):
                if self._clip_norm is not None:
                    for each in update.optimizers.values():
                        scaler.unscale_(each)
                    self._state.strategy.clip(update.parameters, self._clip_norm)
                with self._randomness.shared(update.optimizers.values()):
                    for each in update.optimizers.values():
                        scaler.step(each)
                scaler.update()
        return loss.detach()

    def _minimize_function(
        self, loss: Callable[[], torch.Tensor], update: _Update, weight: torch.Tensor | float | None, part: Slice
    ) -> torch.Tensor:
        if self._precision.is_scaled:
            raise TaskError(
                "session.minimize: with train.precision fp16 the loss cannot be a function, since gradient scaling "
                "does not work with optimizers that evaluate it; use bf16 or fp32"
            )
        if len(update.optimizers) != 1:
            raise TaskError("session.minimize: a loss that is a function needs one optimizer; name it with optimizer=")
        (optimizer,) = update.optimizers.values()
        losses: list[torch.Tensor] = []

        def evaluate() -> torch.Tensor:
            with torch.enable_grad(), self._precision.autocast(), self._randomness.own():
                value = read_loss(loss())
            losses.append(value.detach())
            gradients = self._mean_gradients(value, update, weight, part, None)
            for parameter, gradient in zip(update.parameters, gradients, strict=True):
                parameter.grad = gradient
            if self._clip_norm is not None:
                self._state.strategy.clip(update.parameters, self._clip_norm)
            return self._mean_loss(value.detach(), weight, part)

        with (
            self._precision.autocast(enabled=False),
            _only(update, [None] * len(update.parameters)),
            self._randomness.shared([optimizer]),
        ):
            optimizer.step(evaluate)  # type: ignore[arg-type]
        if not losses:
            raise TaskError(f"session.minimize: {type(optimizer).__name__} has not called the loss")
        return losses[0]

    def _mean_gradients(
        self,
        loss: torch.Tensor,
        update: _Update,
        weight: torch.Tensor | float | None,
        part: Slice,
        scaler: torch.amp.GradScaler | None,
    ) -> list[torch.Tensor | None]:
        """The gradients of the mean loss over the global batch, scaled if there is a scaler."""
        mine: torch.Tensor | float = part.num_samples if weight is None else read_weight(weight, loss, part)
        scaled = loss * _as(mine, loss) / part.batch_size
        gradients = self._reducer.sum_gradients(
            scaled if scaler is None else scaler.scale(scaled), update.parameters, mine
        )
        found = [gradient for gradient in gradients if gradient is not None]
        if not found:
            raise TaskError(
                "session.minimize: the loss does not depend on any parameter that it may update: check `of` and "
                "`optimizer`, and that nothing was detached"
            )
        if isinstance(mine, torch.Tensor):
            divide_by_weight(found, total_weight(mine), part.batch_size)
        return gradients

    def _mean_loss(self, loss: torch.Tensor, weight: torch.Tensor | float | None, part: Slice) -> torch.Tensor:
        """The mean loss over the global batch, with the same bits on every rank."""
        mine = float(part.num_samples if weight is None else read_weight(weight, loss, part))
        total, total_weight = self._tree.sums([float(loss) * mine if mine else 0.0, mine])
        return torch.tensor(total / total_weight if total_weight else 0.0, dtype=loss.dtype, device=loss.device)

    def _choose(self, of: Any, optimizer: Any) -> _Update:
        """The optimizers and parameters of a call."""
        optimizers = self._named(optimizer)
        wanted = None if of is None else {id(parameter) for module in _modules(of) for parameter in module.parameters()}
        chosen: dict[str, torch.optim.Optimizer] = {}
        parameters: list[torch.Tensor] = []
        for name, each in optimizers.items():
            mine = [
                parameter
                for group in each.param_groups
                for parameter in group["params"]
                if parameter.requires_grad and (wanted is None or id(parameter) in wanted)
            ]
            if mine:
                chosen[name] = each
                parameters += mine
        if not parameters:
            raise TaskError("session.minimize: no optimizer has a trainable parameter of what is to be updated")
        return _Update(chosen, parameters)

    def _named(self, optimizer: Any) -> dict[str, torch.optim.Optimizer]:
        known = self._state.optimizers
        if optimizer is None:
            return known
        names = {name: name.rpartition(".")[2] for name in known}
        found = {name: each for name, each in known.items() if optimizer in (names[name], each)}
        if not found:
            shown = ", ".join(names.values())
            raise TaskError(f"session.minimize: there is no optimizer {optimizer!r}; the job has: {shown}")
        return found


def read_loss(value: Any) -> torch.Tensor:
    """A loss as a scalar tensor.

    Raises:
        TaskError: It is something else.
    """
    if not isinstance(value, torch.Tensor) or value.numel() != 1:
        form = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__
        raise TaskError(
            f"session.minimize: needs a scalar tensor, the mean loss, but got {form}; reduce it to its mean"
        )
    return value.reshape(())


def read_weight(weight: torch.Tensor | float, loss: torch.Tensor, part: Slice) -> torch.Tensor:
    """A weight as a float64 scalar on the loss's device; 0 for a stand-in.

    Raises:
        TaskError: It cannot be a weight.
    """
    value = torch.as_tensor(weight, dtype=torch.float64, device=loss.device).detach().reshape(())
    if value.device.type == "cpu" and not 0 <= float(value) < float("inf"):
        raise TaskError(f"session.minimize: got the weight {float(value)}; a weight is a count, finite and at least 0")
    return value if part.num_samples else torch.zeros_like(value)


def _as(value: torch.Tensor | float, like: torch.Tensor) -> torch.Tensor | float:
    return value.to(like.dtype) if isinstance(value, torch.Tensor) else value


def _modules(of: Any) -> Sequence[nn.Module]:
    modules = [of] if isinstance(of, nn.Module) else list(of) if isinstance(of, Iterable) else []
    if not modules or not all(isinstance(module, nn.Module) for module in modules):
        raise TaskError(f"session.minimize: of must be a module or a list of modules, not a {type(of).__name__}")
    return modules


@contextmanager
def _only(update: _Update, gradients: Sequence[torch.Tensor | None]) -> Iterator[None]:
    """Gives the parameters their gradients for an update, and hides all other gradients of its optimizers."""
    mine = {id(parameter) for parameter in update.parameters}
    groups = [group for optimizer in update.optimizers.values() for group in optimizer.param_groups]
    others = [(p, p.grad) for group in groups for p in group["params"] if id(p) not in mine and p.grad is not None]
    for parameter, _ in others:
        parameter.grad = None
    for parameter, gradient in zip(update.parameters, gradients, strict=True):
        parameter.grad = gradient
    try:
        yield
    finally:
        for parameter in update.parameters:
            parameter.grad = None
        for parameter, kept in others:
            parameter.grad = kept
