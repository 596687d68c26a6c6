"""Values that the job's code logs, as means over the global batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist

from distrib.train.process.rank_tree import RankTree

_Sums = dict[str, tuple[Any, float]]


@dataclass
class LogAccumulator:
    """Adds up this rank's share of logged values, Σ value·weight and Σ weight by name, window by window.

    A tensor stays on its device until the ranks exchange.
    """

    _open: _Sums = field(default_factory=dict)
    _closed: list[tuple[int, _Sums]] = field(default_factory=list)

    def add(self, values: Mapping[str, Any], weight: float) -> None:
        """Adds values that are means over `weight` samples; without weight only the names count."""
        for name, value in values.items():
            total, total_weight = self._open.get(name, (0.0, 0.0))
            if weight > 0:
                number = value.detach().double() if isinstance(value, torch.Tensor) else float(value)
                total, total_weight = total + number * weight, total_weight + weight
            self._open[name] = (total, total_weight)

    def end_window(self, step: int) -> None:
        """Ends the window of the event of `step`."""
        self._closed.append((step, self._open))
        self._open = {}

    def flush(self, group: dist.ProcessGroup) -> dict[int, dict[str, float | None]]:
        """The means of each ended window over all ranks, by step, the same on every rank; all ranks call it together.

        None stands for a name that no sample was logged for.
        """
        closed, self._closed = self._closed, []
        mine = [(step, _numbers(sums)) for step, sums in closed]
        means: dict[int, dict[str, float | None]] = RankTree(group).combine_objects(mine, _means)
        return means

    def state_dict(self) -> dict[str, Any]:
        """The window that is still open."""
        return {"open": _numbers(self._open)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues the window that `state_dict` returned."""
        self._open = {name: (total, weight) for name, (total, weight) in state["open"].items()}

    def merge_ranks(self, states: list[dict[str, Any]], rank: int, world_size: int) -> dict[str, Any]:
        """All sums on rank 0, since only their total over the ranks counts."""
        merged: dict[str, list[float]] = {}
        for state in states if rank == 0 else []:
            for name, (total, weight) in state["open"].items():
                before = merged.get(name, [0.0, 0.0])
                merged[name] = [before[0] + total, before[1] + weight]
        return {"open": merged}


def _numbers(sums: Mapping[str, tuple[Any, float]]) -> dict[str, list[float]]:
    return {name: [float(total), weight] for name, (total, weight) in sums.items()}


def _means(ranks: list[list[tuple[int, dict[str, list[float]]]]]) -> dict[int, dict[str, float | None]]:
    """The means of each window over the ranks, by step."""
    merged: dict[int, dict[str, float | None]] = {}
    for number, (step, _) in enumerate(ranks[0]):
        windows = [windows[number][1] for windows in ranks]
        names = dict.fromkeys(name for sums in windows for name in sums)
        merged[step] = {name: _mean([sums[name] for sums in windows if name in sums]) for name in names}
    return merged


def _mean(pairs: list[list[float]]) -> float | None:
    total, weight = (sum(values) for values in zip(*pairs, strict=True))
    return total / weight if weight else None
