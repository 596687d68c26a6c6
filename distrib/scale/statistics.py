"""Medians of noisy measurements, and how sure they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

DRAWS = 2000
_PERCENTILES = (2.5, 97.5)


def draw_medians(groups: Sequence[Sequence[float]], seed: int = 0) -> NDArray[np.float64]:
    """Medians of bootstrap samples: repeats are drawn with replacement, and of each as many values as it has.

    Args:
        groups: The values of each repeat.
        seed: Of the drawing.
    """
    generator = np.random.default_rng(seed)
    arrays = [np.asarray(group, dtype=np.float64) for group in groups if len(group)]
    medians = np.empty(DRAWS)
    for number in range(DRAWS):
        chosen = [arrays[index] for index in generator.integers(len(arrays), size=len(arrays))]
        medians[number] = np.median(np.concatenate([array[generator.integers(len(array), size=len(array))]
                                                    for array in chosen]))  # fmt: skip
    return medians


def interval(values: NDArray[Any]) -> tuple[float, float]:
    """The range that holds 95 % of bootstrap values."""
    low, high = np.percentile(values, _PERCENTILES)
    return float(low), float(high)
