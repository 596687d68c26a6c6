"""The charts of an experiment: efficiency, throughput and the parts of a step by the number of workers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from distrib.observe.page.svg import Chart, Curve, draw_legend, make_chart, series_color
from distrib.scale.prediction import Prediction
from distrib.scale.result import PARTS, Interval, MeasuredSize

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MEASURED, _PREDICTED, _IDEAL = series_color(0), series_color(3), series_color(6)
_PART_COLORS = dict(zip(PARTS, map(series_color, (0, 1, 4, 2)), strict=True))
_MAX_TICKS = 7
_HALF_BAR = 2**0.3
"""The ratio of a bar's right edge to its middle on the axis of workers, where each doubling is as wide."""


def make_charts(rows: Sequence[MeasuredSize], predictions: Sequence[Prediction]) -> list[Chart]:
    """The charts of the measured sizes and of the predicted ones.

    Raises:
        ReportLibraryMissingError: matplotlib is not installed.
    """
    if not rows:
        return []
    return [
        make_chart(
            "efficiency", "Efficiency (%) by workers", partial(_draw_efficiency, rows=rows, predictions=predictions)
        ),
        make_chart(
            "throughput", "Samples per second by workers", partial(_draw_throughput, rows=rows, predictions=predictions)
        ),
        make_chart("parts", "Seconds of a step by workers", partial(_draw_parts, rows=rows)),
    ]


def _draw_efficiency(axes: Axes, *, rows: Sequence[MeasuredSize], predictions: Sequence[Prediction]) -> list[Curve]:
    axes.axhline(100, color=_IDEAL, linestyle="--", linewidth=1, label="ideal")
    known = [
        (row.workers, 100 * row.efficiency, _percent(row.efficiency_interval))
        for row in rows
        if row.efficiency is not None and row.efficiency_interval is not None
    ]
    curves = _draw_measured(axes, *map(list, zip(*known, strict=True))) if known else []
    sizes = [row.workers for row in predictions]
    ranges = [_percent(row.efficiency_range) for row in predictions]
    curves += _draw_prediction(axes, sizes, [100 * row.efficiency for row in predictions], ranges)
    axes.set_ylim(bottom=0)
    _finish(axes, [*(row.workers for row in rows), *sizes])
    return curves


def _draw_throughput(axes: Axes, *, rows: Sequence[MeasuredSize], predictions: Sequence[Prediction]) -> list[Curve]:
    each = rows[0].samples_per_second / rows[0].workers
    sizes = [*(row.workers for row in rows), *(row.workers for row in predictions)]
    axes.plot(sizes, [each * size for size in sizes], color=_IDEAL, linestyle="--", linewidth=1, label="ideal")
    curves = _draw_measured(
        axes,
        [row.workers for row in rows],
        [row.samples_per_second for row in rows],
        [_rates(row.global_batch_size, row.interval) for row in rows],
    )
    curves += _draw_prediction(
        axes,
        [row.workers for row in predictions],
        [row.samples_per_second for row in predictions],
        [_rates(row.global_batch_size, row.range) for row in predictions],
    )
    axes.set_yscale("log")
    _finish(axes, sizes)
    return curves


def _draw_parts(axes: Axes, *, rows: Sequence[MeasuredSize]) -> list[Curve]:
    """The parts of a step stacked, a bar for each measured size."""
    sizes = np.array([row.workers for row in rows], dtype=float)
    left, width = sizes / _HALF_BAR, sizes * _HALF_BAR - sizes / _HALF_BAR
    bottom = np.zeros(len(rows))
    curves = []
    for part in PARTS:
        seconds = np.array([getattr(row.split, part) for row in rows])
        axes.bar(left, seconds, width, bottom=bottom, align="edge", color=_PART_COLORS[part], label=part)
        bottom += seconds
        curves.append(Curve(part, sizes, seconds))
    _finish(axes, [row.workers for row in rows])
    return curves


def _draw_measured(
    axes: Axes, sizes: Sequence[int], values: Sequence[float], intervals: Sequence[Interval]
) -> list[Curve]:
    """Measured values as a line, with their intervals."""
    low, high = np.array(intervals).T
    middle = np.array(values)
    errors = [np.maximum(0, middle - low), np.maximum(0, high - middle)]
    axes.errorbar(sizes, middle, yerr=errors, color=_MEASURED, marker="o", markersize=5, capsize=3, label="measured")
    return [Curve("measured", np.array(sizes, dtype=float), middle)]


def _draw_prediction(
    axes: Axes, sizes: Sequence[int], values: Sequence[float], ranges: Sequence[Interval]
) -> list[Curve]:
    """Predicted values as a dotted line, within their range."""
    if not sizes:
        return []
    low, high = np.array(ranges).T
    axes.fill_between(sizes, low, high, color=_PREDICTED, alpha=0.18, linewidth=0)
    axes.plot(sizes, values, color=_PREDICTED, linestyle=":", label="predicted, with range")
    x = np.array(sizes, dtype=float)
    return [Curve("predicted", x, np.array(values)), Curve("at worst", x, low), Curve("at best", x, high)]


def _percent(interval: Interval) -> Interval:
    return 100 * interval[0], 100 * interval[1]


def _rates(global_batch_size: int, seconds: Interval) -> Interval:
    """An interval of step seconds as samples per second, ascending."""
    return global_batch_size / seconds[1], global_batch_size / seconds[0]


def _finish(axes: Axes, sizes: Sequence[int]) -> None:
    """An axis of workers on which each doubling is as wide, and the names of what is drawn."""
    shown = sizes if len(sizes) <= _MAX_TICKS else sizes[::2]
    axes.set_xlabel("workers")
    axes.set_xscale("log", base=2)
    axes.set_xticks(shown, [f"{size:,}" for size in shown])
    axes.minorticks_off()
    draw_legend(axes)
