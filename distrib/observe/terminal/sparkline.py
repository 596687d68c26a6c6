"""A row of values as one line of text."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

_BARS = "▁▂▃▄▅▆▇█"
_MAX_VALUES = 1024
_LOG_RATIO = 10
"""Positive values that differ by more than this factor are drawn on a logarithmic scale, as losses usually are."""


class Sparkline:
    """Collects values in bounded memory and draws them as bars: `█▆▄▃▂▁`.

    Old values are averaged in pairs as their number grows, so that a bar always stands for an equal share of the run.
    """

    def __init__(self) -> None:
        self._values: list[float] = []
        self._pending: list[float] = []
        self._num_per_value = 1

    def add(self, value: float) -> None:
        """Adds a value; one that is not finite has no bar."""
        if not math.isfinite(value):
            return
        self._pending.append(value)
        if len(self._pending) == self._num_per_value:
            self._values.append(_mean(self._pending))
            self._pending.clear()
        if len(self._values) == _MAX_VALUES:
            self._values = [_mean(self._values[index : index + 2]) for index in range(0, _MAX_VALUES, 2)]
            self._num_per_value *= 2

    def draw(self, width: int) -> str:
        """The values as at most `width` bars, from the lowest value to the highest; fewer than two have none."""
        values = [*self._values, *([_mean(self._pending)] if self._pending else [])]
        if len(values) < 2 or width < 2:
            return ""
        count = min(width, len(values))
        edges = [index * len(values) // count for index in range(count + 1)]
        means = [_mean(values[start:end]) for start, end in itertools.pairwise(edges)]
        if min(means) > 0 and max(means) > _LOG_RATIO * min(means):
            means = [math.log(mean) for mean in means]
        low, high = min(means), max(means)
        if high == low:
            return _BARS[0] * count
        return "".join(_BARS[round((mean - low) / (high - low) * (len(_BARS) - 1))] for mean in means)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
