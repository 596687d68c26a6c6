"""Everything that a checkpoint holds, by name."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import nn

from distrib.train.checkpoint.parts import (
    LAYOUT,
    MODEL,
    OPTIMIZER,
    TRAINABLE,
    Part,
    RestoreError,
    Stateful,
    as_part,
    restore_layout,
    trainable_as,
    trainable_names,
)
from distrib.train.checkpoint.plain_state import dump_state, load_state
from distrib.train.checkpoint.tensors import Tensors, join_tensors, split_tensors
from distrib.train.strategy.base import Strategy

if TYPE_CHECKING:
    from distrib.train.checkpoint.restore import RememberedState, StoredState

_VALUES = "#values"
"""Among the names of one rank's tensors: its other values, as the bytes of their JSON text."""


class MergesRanks(Stateful, Protocol):
    """An object with a state for each rank that can be restored at another number of ranks."""

    def merge_ranks(self, states: list[dict[str, Any]], rank: int, world_size: int) -> dict[str, Any]:
        """The state of `rank` among `world_size` ranks, given the saved states of all ranks of another number."""


@dataclass(frozen=True)
class Snapshot:
    """A training's state at the end of a step.

    Attributes:
        tensors: This rank's share of the tensors; they are those of the training, not copies.
        values: All other state, equal on every rank.
        digests: Of each part that is to be equal on every rank but might not be.
    """

    tensors: Tensors
    values: dict[str, Any]
    digests: dict[str, str]


@dataclass(frozen=True)
class _Registered:
    value: Any
    part: Part
    per_rank: bool
    is_checked: bool


class TrainingState:
    """Models, optimizers and all else that a checkpoint holds; whatever is registered is saved and restored.

    Built once by the worker and passed whole to whoever needs a part of it. An object is restored as soon as it is
    registered, if the run continues from a checkpoint that has a part of that name.

    Args:
        strategy: How models are spread over the ranks.
        rank: This rank.
        world_size: The number of ranks.
        stored: The checkpoint to continue from.

    Attributes:
        completed_steps: Optimizer steps of the whole run.
        models: The unwrapped models by name.
        wrapped: For each, what is run instead of it.
        optimizers: By name.
        has_user_code: Whether the job's code may register objects.
    """

    def __init__(self, strategy: Strategy, rank: int, world_size: int, stored: StoredState | None = None) -> None:
        self.strategy = strategy
        self.completed_steps = 0 if stored is None else stored.completed_steps
        self.models: dict[str, nn.Module] = {}
        self.wrapped: dict[str, nn.Module] = {}
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.has_user_code = False
        self._first_trainable: dict[str, list[str]] = {}
        self._rank = rank
        self._world_size = world_size
        self._stored: StoredState | RememberedState | None = stored
        self._registered: dict[str, _Registered] = {}
        self.register("strategy", strategy)
        if strategy.per_rank_state is not None:
            self.register("strategy.rank", strategy.per_rank_state, per_rank=True)

    def add_model(self, model: nn.Module, name: str = MODEL, *, is_wrapped: bool = True) -> None:
        """Wraps and registers a model, which is on its device.

        Args:
            model: The unwrapped model.
            name: Unique among the models.
            is_wrapped: Whether a strategy synchronizes its gradients; otherwise it is run as it is.
        """
        first = self._first_trainable[name] = trainable_names(model)
        stored = None if self._stored is None else self._stored.values(name)
        if stored is not None:
            restore_layout(model, stored[LAYOUT])
        with trainable_as(model, first if stored is None else stored[TRAINABLE]):
            if is_wrapped:
                self.wrapped[name] = self.strategy.wrap(model, name)
            else:
                self.strategy.broadcast(model)
                self.wrapped[name] = model
        self.models[name] = model
        self.register(name, model)

    def add_optimizer(self, optimizer: torch.optim.Optimizer, name: str = OPTIMIZER) -> None:
        """Registers an optimizer; the models are wrapped before it is built."""
        self.optimizers[name] = optimizer
        self.register(name, optimizer)

    @contextmanager
    def first_trainable(self) -> Iterator[None]:
        """For building optimizers: parameters require gradients as they did before anything was restored."""
        with ExitStack() as stack:
            for name, model in self.models.items():
                stack.enter_context(trainable_as(model, self._first_trainable[name]))
            yield

    def sync_buffers(self) -> None:
        """Gives every rank the buffers and extra state of rank 0 in all modules, to which they belong."""
        for registered in self._registered.values():
            if isinstance(registered.value, nn.Module):
                self.strategy.sync_buffers(registered.value)

    def rewrap_outdated(self) -> None:
        """Wraps models again whose parameters were frozen or unfrozen since; call it between steps, on all ranks."""
        for name, model in self.models.items():
            if self.wrapped[name] is not model and self.strategy.is_outdated(name):
                self.wrapped[name] = self.strategy.wrap(model, name)

    @property
    def model(self) -> nn.Module:
        """The job's model, unwrapped."""
        return self.models[MODEL]

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The job's only optimizer."""
        return self.optimizers[OPTIMIZER]

    def register(self, name: str, value: Any, *, per_rank: bool = False, is_checked: bool = False) -> None:
        """Adds an object to what checkpoints hold and restores it if there is something to restore.

        Args:
            name: Unique, without `/`.
            value: A model, an optimizer or any `Stateful`.
            per_rank: Whether each rank has a state of its own. At another number of ranks `MergesRanks` is needed.
            is_checked: Whether each save makes sure that the state is the same on all ranks.

        Raises:
            RestoreError: The saved state does not fit.
        """
        if name in self._registered or "/" in name:
            raise ValueError(f"'{name}' is registered already, or has a '/'")
        part = as_part(name, value, self.strategy)
        found = self._registered[name] = _Registered(value, part, per_rank, is_checked)
        if self._stored is None:
            return
        if per_rank:
            self._restore_rank(name, found)
        elif (values := self._stored.values(name)) is not None:
            found.part.load_state_dict(self._read(f"{name}/", values, found.part))

    def snapshot(self) -> Snapshot:
        """The state now; all ranks call it together, at the end of the same step."""
        replicated: Tensors = {}
        mine: Tensors = {}
        values: dict[str, Any] = {}
        digests: dict[str, str] = {}
        for name, registered in self._registered.items():
            part = registered.part
            plain, tensors = split_tensors(part.state_dict(), keeps_small=part.keeps_small)
            if registered.per_rank:
                text = torch.frombuffer(bytearray(dump_state(plain).encode()), dtype=torch.uint8)
                mine |= {f"{name}/{self._rank}/{key}": tensor for key, tensor in {**tensors, _VALUES: text}.items()}
            else:
                replicated |= {f"{name}/{key}": tensor for key, tensor in tensors.items()}
                values[name] = plain
            if registered.is_checked:
                digests[name] = _digest(plain, tensors)
        head = {"completed_steps": self.completed_steps, "world_size": self._world_size}
        return Snapshot(self.strategy.share(replicated) | mine, {**head, "parts": values}, digests)

    def check_savable(self) -> None:
        """Finds what no checkpoint can hold, long before one is due; all ranks call it together.

        Raises:
            StateError: There is such state; the message says where.
        """
        dump_state(self.snapshot().values)

    def end_restoring(self) -> None:
        """Reads what may still be registered, since the checkpoint's files may be removed from now on."""
        if self._stored is not None:
            self._stored = self._stored.remember(except_names=self._registered)

    def _restore_rank(self, name: str, registered: _Registered) -> None:
        """Restores this rank's own state, or what it becomes at another number of ranks."""
        assert self._stored is not None
        num_saved = self._stored.num_ranks(name)
        if num_saved == self._world_size:
            registered.part.load_state_dict(self._read_rank(name, self._rank, registered.part))
        elif num_saved:
            merge = getattr(registered.value, "merge_ranks", None)
            if merge is None:
                raise RestoreError(
                    f"'{name}' is kept for each rank, and the checkpoint has {num_saved} ranks; continue with "
                    f"--workers {num_saved}"
                )
            states = [self._read_rank(name, rank, registered.part) for rank in range(num_saved)]
            registered.part.load_state_dict(merge(states, self._rank, self._world_size))

    def _read_rank(self, name: str, rank: int, part: Part) -> dict[str, Any]:
        assert self._stored is not None
        prefix = f"{name}/{rank}/"
        values = torch.empty(self._stored.tensors(prefix)[_VALUES][0], dtype=torch.uint8)
        self._stored.read({f"{prefix}{_VALUES}": values})
        return self._read(prefix, load_state(bytes(values.tolist()).decode()), part)

    def _read(self, prefix: str, values: Any, part: Part) -> dict[str, Any]:
        """The saved state whose tensors are those with `prefix`."""
        assert self._stored is not None
        targets = {
            key: part.target(key, shape, dtype)
            for key, (shape, dtype) in self._stored.tensors(prefix).items()
            if key != _VALUES
        }
        self._stored.read({f"{prefix}{key}": tensor for key, tensor in targets.items()})
        state: dict[str, Any] = join_tensors(values, targets)
        return state


def _digest(plain: Any, tensors: Tensors) -> str:
    digest = hashlib.sha256(dump_state(plain).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
