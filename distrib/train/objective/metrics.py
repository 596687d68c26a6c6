"""Metrics over all ranks: their states are gathered on one rank, computed there, and the values sent to all."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist

from distrib.compat.messages import without_compute_warning
from distrib.compat.torchmetrics_states import merge, metrics_of, states_of
from distrib.train.data.batches import map_tensors
from distrib.train.failure import PeerFailedError
from distrib.train.process.rank_tree import RankTree


def compute_metrics(metrics: Mapping[str, Any], num_samples: int, group: dist.ProcessGroup) -> dict[str, Any]:
    """Every metric's value over all ranks, as plain numbers, the same on every rank.

    They are computed on the first rank that has samples. A rank without any has never updated its metrics: one that
    learns the number of classes from its first update, say, cannot be computed there, and its states would only count
    as values that nobody has seen.

    Args:
        metrics: Updated on this rank's samples.
        num_samples: The number of these.
        group: A gloo group of all ranks.
    """
    if not metrics:
        return {}
    tree = RankTree(group)
    if tree.world_size == 1:
        return {name: value_of(metric) for name, metric in metrics.items()}
    gathered = tree.gather_objects((_states(metrics), num_samples) if num_samples else None)
    owner = int(tree.combine([num_samples], 1, _first_with_samples)[0])
    gathered = tree.pass_object(gathered, owner)
    shared: list[Any] = [None]
    try:
        if gathered is not None:
            _merge(metrics, [states for states in gathered if states is not None])
            shared[0] = {name: value_of(metric) for name, metric in metrics.items()}
    finally:
        dist.broadcast_object_list(shared, src=owner, group=group)  # also after an error, so that the others end
    if shared[0] is None:
        raise PeerFailedError(f"the metrics could not be computed on rank {owner}")
    values: dict[str, Any] = shared[0]
    return values


def _first_with_samples(rows: torch.Tensor) -> list[float]:
    """The first rank whose row is not 0; rank 0 if there is none."""
    return [float(rows[:, 0].gt(0).byte().argmax())]


def _parts(metrics: Mapping[str, Any]) -> dict[tuple[str, int], Any]:
    """The single metrics that collections and wrappers consist of."""
    return {(name, number): part for name, metric in metrics.items() for number, part in enumerate(metrics_of(metric))}


def _states(metrics: Mapping[str, Any]) -> dict[tuple[str, int], dict[str, Any]]:
    return {key: map_tensors(states_of(part), torch.Tensor.cpu) for key, part in _parts(metrics).items()}


def _merge(metrics: Mapping[str, Any], by_rank: list[tuple[dict[tuple[str, int], dict[str, Any]], int]]) -> None:
    """Gives the metrics the states of several ranks, in the order of ranks; those of a single one stay as they are."""
    for key, part in _parts(metrics).items():
        found = [(states[key], count) for states, count in by_rank if key in states]
        if len(found) > 1:
            states = map_tensors([state for state, _ in found], functools.partial(torch.Tensor.to, device=part.device))
            merge(part, states, [count for _, count in found])


def counted_outside(metrics: Mapping[str, Any], before: Mapping[tuple[str, int], dict[str, Any]]) -> list[str]:
    """The attributes, such as `accuracy.count`, in which metrics have added up something that is none of their states.

    Args:
        metrics: After their updates.
        before: What `attributes_of` gave before them.
    """
    after = attributes_of(metrics)
    return [
        f"{name}.{attribute}"
        for (name, number), attributes in after.items()
        for attribute, value in attributes.items()
        if before.get((name, number), {}).get(attribute, value) != value
    ]


def attributes_of(metrics: Mapping[str, Any]) -> dict[tuple[str, int], dict[str, Any]]:
    """The numbers, and the lengths of lists, among the public attributes of metrics that are none of their states."""
    return {
        key: {
            name: value if isinstance(value, int | float) else len(value)
            for name, value in vars(part).items()
            if not name.startswith("_") and name not in states_of(part) and isinstance(value, int | float | list)
        }
        for key, part in _parts(metrics).items()
    }


def value_of(metric: Any) -> Any:
    """A metric's value on this rank alone, as plain numbers."""
    for _ in metrics_of(metric):
        pass  # which keeps each of them from synchronizing by itself
    with without_compute_warning():
        return _plain(metric.compute())


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.item() if value.numel() == 1 else value.tolist()
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
