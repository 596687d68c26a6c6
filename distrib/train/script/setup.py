"""Models and optimizers of a script, made part of its training."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from distrib.job.spec.patterns import METRIC_PATTERN, PATTERNS_IN_WORDS
from distrib.train.checkpoint.parts import MODEL, OPTIMIZER
from distrib.train.checks.model_state import check_state
from distrib.train.health.alike import check_models
from distrib.train.process.rank_tree import RankTree
from distrib.train.script.errors import UsageError
from distrib.train.state import TrainingState

_TAKEN = ("logs", "loops", "losses", "samples", "scaler", "ending", "strategy", OPTIMIZER)
_WRAPPERS = ("DistributedDataParallel", "FullyShardedDataParallel", "DataParallel")


class ModelSetup:
    """Puts models on the device, makes them equal on all ranks, and restores them and their optimizers.

    Args:
        state: What a checkpoint holds.
        device: This rank's.
        tree: All ranks.
        is_resumed: Whether the run continues from a checkpoint.
    """

    def __init__(self, state: TrainingState, device: torch.device, tree: RankTree, *, is_resumed: bool) -> None:
        self._state = state
        self._tree = tree
        self._device = device
        self._is_resumed = is_resumed
        self._values: list[tuple[torch.optim.Optimizer, list[dict[str, Any]]]] = []

    def add(self, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer], name: str) -> None:
        """Adds a model and its optimizers; see `ScriptSession.setup`.

        Raises:
            UsageError: Something cannot be set up.
        """
        self._check(model, optimizers, name)
        check_models([model], self._tree)
        model.to(self._device)
        self._state.add_model(model, name, is_wrapped=False)
        for number, optimizer in enumerate(optimizers):
            own = OPTIMIZER if name == MODEL else f"{OPTIMIZER}.{name}"
            self._state.add_optimizer(optimizer, own if not number else f"{own}-{number + 1}")
            if self._is_resumed:
                self._values.append((optimizer, [_values(group) for group in optimizer.param_groups]))

    def restore_values(self, optimizer: torch.optim.Optimizer) -> None:
        """Gives an optimizer back its restored learning rates and the like, which building a scheduler overwrites."""
        for restored, values in self._values:
            if restored is optimizer:
                for group, saved in zip(optimizer.param_groups, values, strict=True):
                    group.update(copy.deepcopy(saved))

    def _check(self, model: Any, optimizers: Sequence[Any], name: str) -> None:
        if not isinstance(model, nn.Module):
            raise UsageError(f"session.setup: needs a torch.nn.Module, not a {type(model).__name__}")
        if type(model).__name__ in _WRAPPERS:
            raise UsageError(
                f"session.setup: the model is wrapped in {type(model).__name__}; pass it unwrapped: the session adds "
                "gradients over the ranks itself"
            )
        if not isinstance(name, str) or not re.match(METRIC_PATTERN, name):
            raise UsageError(f"session.setup: {name!r} is no name; needs {PATTERNS_IN_WORDS[METRIC_PATTERN]}")
        if name in self._state.models or name in _TAKEN:
            raise UsageError(f"session.setup: the name '{name}' is taken; give each model another one with name=")
        if not self._is_resumed:
            check_state(model, None)
        mine = {id(parameter) for parameter in model.parameters()}
        for optimizer in optimizers:
            if not isinstance(optimizer, torch.optim.Optimizer):
                raise UsageError(
                    f"session.setup: needs optimizers after the model, not a {type(optimizer).__name__}; keep a "
                    "learning-rate scheduler with session.keep"
                )
            if not all(id(p) in mine for group in optimizer.param_groups for p in group["params"]):
                raise UsageError(
                    "session.setup: the optimizer has parameters that are not the model's; build it from the same model"
                )


def _values(group: dict[str, Any]) -> dict[str, Any]:
    return {name: copy.deepcopy(value) for name, value in group.items() if name not in ("params", "param_names")}
