"""What an optimizer's parameter groups hold beside parameters: its own numbers, a schedule's, and the plan's."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch

from distrib.errors import DistribError
from distrib.job.spec.targets import Target

Group = dict[str, Any]


class ExtensionError(DistribError):
    """A run cannot be extended, because nothing says how a value of the shorter run is to change."""


def depends_on_length(target: Target) -> bool:
    """Whether a target's arguments contain `$steps`."""

    def is_in(value: Any) -> bool:
        if isinstance(value, Mapping):
            return any(map(is_in, value.values()))
        return any(map(is_in, value)) if isinstance(value, list) else value == "$steps"

    return is_in(target.args)


def group_values(optimizer: torch.optim.Optimizer) -> list[Group]:
    """Copies of what each parameter group holds beside its parameters."""
    return [copy.deepcopy(without_parameters(group)) for group in optimizer.param_groups]


def without_parameters(group: Mapping[str, Any]) -> Group:
    """What a parameter group holds beside its parameters."""
    return {name: value for name, value in group.items() if name not in ("params", "param_names")}


def is_same(one: Any, other: Any) -> bool:
    """Whether two values of groups are equal."""
    if isinstance(one, torch.Tensor) or isinstance(other, torch.Tensor):
        return torch.equal(torch.as_tensor(one), torch.as_tensor(other))
    return bool(one == other)


def replace_planned(optimizer: torch.optim.Optimizer, before: list[Group], now: list[Group], name: str) -> None:
    """Replaces what an optimizer has computed from the length of the run, after that has changed.

    Args:
        optimizer: The restored optimizer, which has the numbers of the shorter run.
        before: What its groups held when it was built for the shorter run.
        now: The same for the longer run.
        name: The spec's field, for the message.

    Raises:
        ExtensionError: A value depends on the length and has changed since, so that none can be given for it.
    """
    for group, first, planned in zip(optimizer.param_groups, before, now, strict=True):
        for key, value in planned.items():
            if is_same(value, first.get(key)):
                continue
            if not is_same(group.get(key), first.get(key)):
                raise ExtensionError(
                    f"{name}: the optimizer's value '{key}' depends on $steps and changes during training, so that it "
                    "is not known for a longer run; start a new run with `fresh`"
                )
            group[key] = copy.deepcopy(value)
