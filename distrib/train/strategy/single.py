"""A single rank, which has nothing to synchronize and runs the model itself."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from distrib.job.plan import Memory
from distrib.train.strategy import replicated
from distrib.train.strategy.base import StrategySettings, Tensors


class SingleProcess:
    """The strategy of a single rank; see `Strategy`."""

    per_rank_state = None

    def __init__(self, settings: StrategySettings) -> None:
        assert settings.world_size == 1

    def wrap(self, model: nn.Module, name: str) -> nn.Module:
        """The model itself."""
        return model

    def without_sync(self, wrapped: nn.Module) -> AbstractContextManager[None]:
        """Nothing to leave out."""
        return nullcontext()

    def is_outdated(self, name: str) -> bool:
        """Nothing to keep up to date."""
        return False

    def finish_backward(self, name: str) -> None:
        """Nothing to synchronize."""

    def clip(self, parameters: Iterable[torch.Tensor], max_norm: float) -> torch.Tensor:
        """Clips the gradients."""
        return replicated.clip(parameters, max_norm)

    def broadcast(self, model: nn.Module) -> None:
        """Nothing to make equal."""

    def sync_buffers(self, model: nn.Module) -> None:
        """Nothing to synchronize."""

    def share(self, tensors: Tensors) -> Tensors:
        """All of them."""
        return tensors

    def allocate(self, shape: torch.Size, dtype: torch.dtype, like: torch.Tensor | None) -> torch.Tensor:
        """An empty tensor of the whole shape."""
        return replicated.allocate(shape, dtype, like)

    def full_weights(self, model: nn.Module) -> Tensors | None:
        """The model's own tensors."""
        return replicated.full_weights(model)

    def memory(self, whole: Memory) -> Memory:
        """All of it."""
        return replicated.memory(whole)

    def gradient_buckets(self, wrapped: nn.Module) -> list[list[int]] | None:
        """No gradient is communicated."""
        return []

    def gradient_bytes(self, wrapped: nn.Module) -> list[float]:
        """No gradient is communicated."""
        return []

    def state_dict(self) -> dict[str, Any]:
        """Nothing to keep."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """What several ranks have kept is of no use to one."""
