"""The states of metrics, summed over ranks by distrib instead of torchmetrics.

torchmetrics' own synchronization hangs if ranks hold lists of unequal length, as with uneven evaluation slices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from distrib.compat.symbols import PrivateSymbol

SYMBOLS = (
    PrivateSymbol(
        "torchmetrics.Metric._reductions",
        "names a metric's states and how each is merged over ranks; the public merge_state refuses metrics with "
        "full_state_update",
        ("1.9",),
        "merge_state, state by state",
    ),
)

_MEAN = "dim_zero_mean"
"""The function by which torchmetrics merges states that were added with `dist_reduce_fx="mean"`."""

Reduction = Callable[[torch.Tensor], torch.Tensor] | None


def metrics_of(metric: Any) -> Iterator[Any]:
    """The metrics that a metric or a collection of them consists of, which synchronize nothing from now on."""
    from torchmetrics import Metric  # here, since it takes most of a second and not every job has metrics

    for part in metric.modules():
        if isinstance(part, Metric):
            part.distributed_available_fn = _is_never_distributed
            yield part


def reductions(metric: Any) -> dict[str, Reduction] | None:
    """How each state of a metric is merged, by the state's name; None in a version that does not say."""
    found: dict[str, Reduction] | None = getattr(metric, "_reductions", None)
    return found


def merge(metric: Any, states: list[dict[str, Any]], counts: list[int]) -> None:
    """Gives `metric` the states of all ranks, in the order of ranks; a state is a tensor or a list of tensors.

    Args:
        metric: The metric.
        states: Of each rank.
        counts: The numbers of samples that they have seen, which weigh states that are means.
    """
    known = reductions(metric)
    if known is None:
        _merge_publicly(metric, states)
        return
    for name, reduction in known.items():
        values = [state[name] for state in states if name in state]
        if any(isinstance(value, list) for value in values):
            merged: Any = [item for value in values for item in (value if isinstance(value, list) else [value])]
        elif getattr(reduction, "__name__", "") == _MEAN:
            merged = sum(value * (count / sum(counts)) for value, count in zip(values, counts, strict=True))
        else:
            merged = torch.stack(values)
            merged = reduction(merged) if reduction is not None else merged
        setattr(metric, name, merged)


def states_of(metric: Any) -> dict[str, Any]:
    """A metric's states by name."""
    known = reductions(metric)
    return dict(metric.metric_state) if known is None else {name: getattr(metric, name) for name in known}


def _merge_publicly(metric: Any, states: list[dict[str, Any]]) -> None:
    *earlier, last = states
    for name, value in last.items():
        setattr(metric, name, value)
    for state in reversed(earlier):  # what is merged in comes first
        metric.merge_state(state)


def _is_never_distributed() -> bool:
    return False
