"""The strategy protocol: everything that depends on how a model is spread over ranks."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from distrib.job.plan import Memory
from distrib.train.settings import TrainingSettings

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class StrategySettings:
    """What a strategy is built from.

    Attributes:
        training: The settings of the training.
        rank: This rank.
        world_size: The number of ranks.
        device: The rank's device.
    """

    training: TrainingSettings
    rank: int
    world_size: int
    device: torch.device


class Strategy(Protocol):
    """Spreads models over the ranks; all ranks call its methods in the same order.

    `state_dict` and `load_state_dict` are for what the strategy itself keeps in checkpoints; a saved state is loaded
    before the first model is wrapped. `per_rank_state` is what each rank keeps for itself, or None.
    """

    def wrap(self, model: nn.Module, name: str) -> nn.Module:
        """What to run instead of `model`; wrapped before the optimizer is built.

        Args:
            model: The model, on its device.
            name: Unique among the models of a training, and the same in every attempt.
        """

    def is_outdated(self, name: str) -> bool:
        """Whether the model must be wrapped again before its next step, since parameters were frozen or unfrozen."""

    def without_sync(self, wrapped: nn.Module) -> AbstractContextManager[None]:
        """The context of a forward and backward pass whose gradients stay local and are accumulated."""

    def finish_backward(self, name: str) -> None:
        """Completes the synchronization of gradients after a backward pass outside `without_sync`.

        Raises:
            TrainingFailedError: Parameters were frozen during the step, which leaves gradients unsynchronized.
        """

    def clip(self, parameters: Iterable[torch.Tensor], max_norm: float) -> torch.Tensor:
        """Scales the gradients so that their 2-norm over the whole model is at most `max_norm`; returns the norm."""

    def broadcast(self, model: nn.Module) -> None:
        """Gives every rank the parameters, buffers and extra state of rank 0: for models that are not wrapped."""

    def sync_buffers(self, model: nn.Module) -> None:
        """Gives every rank the buffers and the extra state of rank 0, to which they belong."""

    def share(self, tensors: Tensors) -> Tensors:
        """This rank's part of tensors that all ranks have, for a checkpoint; together the parts are everything."""

    def allocate(self, shape: torch.Size, dtype: torch.dtype, like: torch.Tensor | None) -> torch.Tensor:
        """An empty tensor to read a saved one of the whole `shape` into; as `like` is laid out, if that is given."""

    def full_weights(self, model: nn.Module) -> Tensors | None:
        """The whole state of the unwrapped model by name on rank 0, tied weights under each name; elsewhere None."""

    def memory(self, whole: Memory) -> Memory:
        """What one rank needs of the memory that the whole model, its gradients and its optimizer need."""

    def gradient_buckets(self, wrapped: nn.Module) -> list[list[int]] | None:
        """Which gradients are communicated together, in order, as numbers of parameters; None if it is not known."""

    def gradient_bytes(self, wrapped: nn.Module) -> list[float]:
        """The bytes of each message in which gradients are communicated, in order; empty if there are none."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of the strategy, equal on all ranks."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""

    @property
    def per_rank_state(self) -> Any | None:
        """What else of it a checkpoint keeps for each rank separately; see `TrainingState.register`."""
