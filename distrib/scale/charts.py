"""The charts of an experiment, as SVG."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from distrib.errors import DistribError
from distrib.scale.prediction import Prediction
from distrib.scale.result import Interval, MeasuredSize

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PART_COLORS = {"compute": "#4477aa", "communication": "#ee6677", "optimizer": "#ccbb44", "data": "#66ccee"}
_MEASURED, _PREDICTED, _IDEAL = "#4477aa", "#aa3377", "#999999"
_MAX_TICKS = 7


class ReportLibraryMissingError(DistribError):
    """The library that draws the charts is not installed."""


def draw_charts(rows: Sequence[MeasuredSize], predictions: Sequence[Prediction]) -> list[str]:
    """Efficiency, throughput and the parts of a step against the number of workers, each as an SVG element.

    Raises:
        ReportLibraryMissingError: matplotlib is not installed.
    """
    return [
        _chart(lambda axes: _draw_efficiency(axes, rows, predictions), "efficiency"),
        _chart(lambda axes: _draw_throughput(axes, rows, predictions), "samples/s"),
        _chart(lambda axes: _draw_split(axes, rows), "seconds of a step"),
    ]


def _chart(draw: Callable[[Any], None], label: str) -> str:
    """A small chart whose text stays text."""
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError:
        raise ReportLibraryMissingError(
            "scale.html needs matplotlib, which is not installed: pip install 'distrib[scale]', then repeat the "
            "command with `resume` to write it"
        ) from None
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": label, "font.family": "sans-serif", "font.size": 9}):
        figure = Figure(figsize=(4.2, 3.3), layout="constrained")
        axes = figure.subplots()
        draw(axes)
        axes.set_xlabel("workers")
        axes.set_title(label, loc="left", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    return text[text.index("<svg") :]


def _draw_efficiency(axes: Axes, rows: Sequence[MeasuredSize], predictions: Sequence[Prediction]) -> None:
    axes.axhline(1, color=_IDEAL, linestyle="--", linewidth=1, label="ideal")
    known = [
        (row.workers, row.efficiency, row.efficiency_interval)
        for row in rows
        if row.efficiency is not None and row.efficiency_interval is not None
    ]
    if known:
        workers, values, intervals = zip(*known, strict=True)
        axes.errorbar(
            workers, values, yerr=_errors(values, intervals), color=_MEASURED, marker="o", capsize=3, label="measured"
        )
    sizes = [row.workers for row in predictions]
    _draw_prediction(
        axes, sizes, [row.efficiency for row in predictions], [row.efficiency_range for row in predictions]
    )
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    _label_sizes(axes, rows, predictions)
    axes.legend(frameon=False)


def _draw_throughput(axes: Axes, rows: Sequence[MeasuredSize], predictions: Sequence[Prediction]) -> None:
    each = rows[0].samples_per_second / rows[0].workers
    sizes = [*(row.workers for row in rows), *(row.workers for row in predictions)]
    axes.plot(sizes, [each * size for size in sizes], color=_IDEAL, linestyle="--", linewidth=1, label="ideal")
    rates = [row.samples_per_second for row in rows]
    errors = _errors(rates, [_rates(row.global_batch_size, row.interval) for row in rows])
    axes.errorbar(
        [row.workers for row in rows], rates, yerr=errors, color=_MEASURED, marker="o", capsize=3, label="measured"
    )
    _draw_prediction(
        axes,
        [row.workers for row in predictions],
        [row.samples_per_second for row in predictions],
        [_rates(row.global_batch_size, row.range) for row in predictions],
    )
    axes.set_yscale("log")
    axes.legend(frameon=False)
    _label_sizes(axes, rows, predictions)


def _draw_split(axes: Axes, rows: Sequence[MeasuredSize]) -> None:
    names = [f"{row.workers:,}" for row in rows]
    bottoms = [0.0] * len(rows)
    for part, color in PART_COLORS.items():
        values = [getattr(row.split, part) for row in rows]
        axes.bar(names, values, bottom=bottoms, color=color, label=part, width=0.6)
        bottoms = [bottom + value for bottom, value in zip(bottoms, values, strict=True)]
    axes.set_ylim(top=1.35 * max(bottoms))
    axes.legend(frameon=False, ncols=2, loc="upper right")


def _draw_prediction(axes: Axes, sizes: Sequence[int], values: Sequence[float], ranges: Sequence[Interval]) -> None:
    if not sizes:
        return
    lows, highs = zip(*ranges, strict=True)
    axes.fill_between(sizes, lows, highs, color=_PREDICTED, alpha=0.15, linewidth=0)
    axes.plot(sizes, values, color=_PREDICTED, linestyle=":", label="predicted, range")


def _errors(values: Sequence[float], intervals: Sequence[Interval]) -> list[list[float]]:
    """How far each interval extends below and above its value."""
    pairs = list(zip(values, intervals, strict=True))
    return [
        [max(0.0, value - low) for value, (low, _) in pairs],
        [max(0.0, high - value) for value, (_, high) in pairs],
    ]


def _rates(global_batch_size: int, seconds: Interval) -> Interval:
    """An interval of step seconds as samples per second, ascending."""
    return global_batch_size / seconds[1], global_batch_size / seconds[0]


def _label_sizes(axes: Axes, rows: Sequence[MeasuredSize], predictions: Sequence[Prediction]) -> None:
    sizes = [*(row.workers for row in rows), *(row.workers for row in predictions)]
    shown = sizes if len(sizes) <= _MAX_TICKS else sizes[::2]
    axes.set_xscale("log", base=2)
    axes.set_xticks(shown, [f"{size:,}" for size in shown])
    axes.minorticks_off()
