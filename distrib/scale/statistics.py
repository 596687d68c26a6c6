"""Medians of noisy measurements and their confidence intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

DRAWS = 2000
_CHUNK = 100
_PERCENTILES = (2.5, 97.5)


def bootstrap_medians(groups: Sequence[Sequence[float]], seed: int = 0) -> NDArray[np.float64]:
    """Medians of bootstrap samples: repeats are drawn with replacement, then values within each repeat.

    Args:
        groups: The values of each repeat.
        seed: Seed of the random draws.
    """
    generator = np.random.default_rng(seed)
    arrays = [np.asarray(group, dtype=np.float64) for group in groups if len(group)]
    lengths = np.asarray([len(array) for array in arrays])
    longest = int(lengths.max())
    table = np.stack([np.resize(array, longest) for array in arrays])
    medians = []
    for _ in range(DRAWS // _CHUNK):
        repeats = generator.integers(len(arrays), size=(_CHUNK, len(arrays), 1))
        steps = (generator.random((_CHUNK, len(arrays), longest)) * lengths[repeats]).astype(np.int64)
        medians.append(np.median(table[repeats, steps].reshape(_CHUNK, -1), axis=1))
    return np.concatenate(medians)


def interval(values: NDArray[Any]) -> tuple[float, float]:
    """The central range that contains 95 % of bootstrap values."""
    low, high = np.percentile(values, _PERCENTILES)
    return float(low), float(high)
