"""Fewer points that draw the same curve."""

from __future__ import annotations

import numpy as np

from distrib.observe.page.svg import Floats


def downsample(x: Floats, y: Floats, num_buckets: int) -> tuple[Floats, Floats]:
    """At most four points of each of `num_buckets` ranges of x: the first, the lowest, the highest and the last.

    No extreme value is lost, so a single spike among a million points stays visible. Points whose y is NaN are gaps:
    one of each bucket is kept.

    Args:
        x: Positions.
        y: Values; NaN for a missing one.
        num_buckets: Ranges of equal width, for example the pixels of the chart.
    """
    if (np.diff(x) < 0).any():
        order = np.argsort(x, kind="stable")
        x, y = x[order], y[order]
    if len(x) <= 4 * num_buckets:
        return x, y
    edges = np.linspace(x[0], x[-1], num_buckets + 1)
    starts = np.searchsorted(x, edges[:-1], side="left")
    ends = np.append(starts[1:], len(x))
    kept: set[int] = set()
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        if start == end:
            continue
        kept.update((start, end - 1))
        values = y[start:end]
        is_number = ~np.isnan(values)
        if is_number.any():
            kept.update((start + int(np.nanargmin(values)), start + int(np.nanargmax(values))))
        if not is_number.all():
            kept.add(start + int(np.argmin(is_number)))
    indices = np.array(sorted(kept))
    return x[indices], y[indices]
