"""Whether all ranks begin with the same model and the same data, found before the first step."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import torch.distributed as dist
from torch import nn

from distrib.errors import DistribError
from distrib.job.step_plan import StepPlan
from distrib.train.process.rank_tree import RankTree


class RanksDifferError(DistribError):
    """The job's code has built different models or datasets on different ranks."""


def check_datasets(facts: Any, tree: RankTree) -> None:
    """Refuses datasets whose lengths differ between the ranks; all ranks call it together.

    Raises:
        RanksDifferError: They differ.
    """
    different = _first_difference(tree, {"data.train": facts.train_samples, "data.eval": facts.eval_samples})
    if different is not None:
        name, rank, first, other = different
        raise RanksDifferError(
            f"{name}: the dataset has {first} samples on rank 0 but {other} on rank {rank}; all ranks need the same: "
            "look for files that only some hosts have, and for datasets that are split by rank (distrib does that)"
        )


def check_loops(plan: StepPlan, group: dist.ProcessGroup) -> None:
    """Refuses loops of a script whose datasets or lengths differ between the ranks; all ranks call it together.

    Raises:
        RanksDifferError: They differ.
    """
    values = {"the length of the dataset": plan.train_samples}
    if plan.order is None:  # otherwise the order itself is compared, at each epoch
        values |= {"batch_size": plan.global_batch_size, "the number of steps": plan.total_steps}
    different = _first_difference(RankTree(group), values)
    if different is not None:
        name, rank, first, other = different
        raise RanksDifferError(
            f"session.batches: {name} is {first} on rank 0 but {other} on rank {rank}; all ranks need the same: look "
            "for files that only some hosts have, for datasets that are split by rank (distrib does that), and for "
            "data that each rank makes at random (call torch.manual_seed first)"
        )


def check_models(modules: Iterable[nn.Module], tree: RankTree) -> None:
    """Refuses models whose parameters differ in number, name, shape or type between the ranks; all ranks call it.

    Raises:
        RanksDifferError: They differ.
    """
    mine = {
        name: f"{tuple(parameter.shape)} {parameter.dtype}"
        for number, module in enumerate(modules)
        for name, parameter in module.named_parameters(prefix="" if number == 0 else "loss")
        if not isinstance(parameter, nn.parameter.UninitializedParameter)
    }
    different = _first_difference(tree, mine)
    if different is not None:
        name, rank, first, other = different
        raise RanksDifferError(
            f"model: parameter {name} is {first or 'missing'} on rank 0 but {other or 'missing'} on rank {rank}; all "
            "ranks need the same model: look for code that depends on the rank, the host or the data it finds there"
        )


def _first_difference(tree: RankTree, mine: dict[str, Any]) -> tuple[str, int, Any, Any] | None:
    """The first name whose value differs from rank 0's, that rank, and both values."""
    if tree.world_size == 1:
        return None
    if tree.combine_objects(_digest(mine), lambda digests: len(set(digests)) == 1):
        return None
    found: tuple[str, int, Any, Any] | None = tree.combine_objects(mine, _compare)
    return found


def _compare(rows: list[dict[str, Any]]) -> tuple[str, int, Any, Any] | None:
    for rank, other in enumerate(rows):
        for name in {**rows[0], **other}:
            if rows[0].get(name) != other.get(name):
                return name, rank, rows[0].get(name), other.get(name)
        for number, (name, there) in enumerate(zip(rows[0], other, strict=True)):
            if name != there:
                return name, rank, f"number {number + 1}", f"number {list(other).index(name) + 1}"
    return None


def _digest(values: dict[str, Any]) -> str:
    return hashlib.sha256(repr(list(values.items())).encode()).hexdigest()
