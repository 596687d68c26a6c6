"""The charts of a report: loss and metrics, speed, and what a step spends its time on, of one run or of several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from distrib.observe.page.svg import Chart, Curve, Floats, draw_legend, make_chart, mark_color, series_color
from distrib.observe.report.downsample import downsample
from distrib.observe.report.run_data import Columns, RunData

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MAX_METRICS = 8
_MAX_BUCKETS = 600
_MIN_BUCKETS = 100
_MAX_CHECKPOINTS = 200
_LOG_RATIO = 20
_TIME_UNITS = ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes"), (1.0, "seconds"))
_MARKERS = {"restart": "v", "resize": "D", "warning": "^", "checkpoint": "|"}
_DASHES: tuple[Any, ...] = ("-", (0, (6, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))


Draw: TypeAlias = "Callable[[Axes], list[Curve]]"


@dataclass(frozen=True)
class XAxis:
    """What a chart has on its x axis: steps, or time in a unit.

    Attributes:
        name: `step` or `time`.
        label: What is written at the axis.
        seconds: The unit of time; 0 for steps.
    """

    name: str
    label: str
    seconds: float = 0.0

    def of(self, data: RunData, columns: Columns) -> Floats:
        """The positions of events."""
        return columns["step"] if not self.seconds else data.elapsed(columns["time"]) / self.seconds

    def at(self, data: RunData, step: int, time: float) -> float:
        """The position of something that happened once."""
        return float(step) if not self.seconds else float(data.elapsed(time)) / self.seconds


def make_charts(runs: Sequence[RunData]) -> list[Chart]:
    """All charts for which the runs have values.

    Raises:
        ReportLibraryMissingError: matplotlib is not installed.
    """
    if not any(len(data.train) or len(data.evaluation) for data in runs):
        return []
    steps, times = XAxis("step", "step"), _time_axis(runs)
    charts: list[tuple[str, str, Draw]] = []
    for axis in (steps, times):
        draw = partial(_draw_value, runs=runs, axis=axis, name="loss")
        charts.append((f"loss-{axis.name}", f"Loss by {axis.name}", draw))
    for number, metric in enumerate(_metrics(runs)):
        for axis in (steps, times):
            draw = partial(_draw_value, runs=runs, axis=axis, name=metric)
            charts.append((f"metric-{number}-{axis.name}", f"{metric} by {axis.name}", draw))
    names = list(dict.fromkeys(name for data in runs for name in data.train.names))
    if "samples_per_second" in names:
        draw = partial(_draw_value, runs=runs, axis=steps, name="samples_per_second")
        charts.append(("speed", "Samples per second by step", draw))
    if "step_seconds" in names:
        charts.append(("parts", "Seconds of a step by step", partial(_draw_parts, runs=runs, axis=steps)))
    for number, name in enumerate(name for name in names if _is_rate(name)):
        draw = partial(_draw_value, runs=runs, axis=steps, name=name, has_marks=False)
        charts.append((f"rate-{number}", f"Learning rate{name[2:]} by step", draw))
    return [make_chart(name, title, draw) for name, title, draw in charts]


def _is_rate(name: str) -> bool:
    return name == "lr" or name.startswith("lr ")


def _metrics(runs: Sequence[RunData]) -> list[str]:
    """The names of metrics and of logged values, but for those that every run has."""
    own = {"step", "time", "attempt", "samples", "loss", "step_seconds", "data_seconds", "samples_per_second"}
    names = dict.fromkeys(name for data in runs for columns in (data.evaluation, data.train) for name in columns.names)
    return [name for name in names if name not in own and not _is_rate(name)][:_MAX_METRICS]


def _time_axis(runs: Sequence[RunData]) -> XAxis:
    last = max((float(data.elapsed(float(data.last["time"]))) for data in runs if data.last), default=0.0)
    seconds, unit = next((size, unit) for size, unit in _TIME_UNITS if last >= 2 * size or size == 1.0)
    return XAxis("time", f"time ({unit})", seconds)


def _draw_value(axes: Axes, *, runs: Sequence[RunData], axis: XAxis, name: str, has_marks: bool = True) -> list[Curve]:
    """A value of train events as a line and of evaluations as a line with dots, of every run."""
    curves: list[Curve] = []
    buckets = max(_MIN_BUCKETS, _MAX_BUCKETS // len(runs))
    for number, data in enumerate(runs):
        for columns, kind in ((data.train, "train"), (data.evaluation, "evaluation")):
            if name not in columns.names:
                continue
            label = _label(data, kind, runs, name)
            is_eval = kind == "evaluation"
            color = series_color(number if len(runs) > 1 else (1 if is_eval else 0))
            style = {"linewidth": 1.6 if is_eval or len(runs) > 1 else 1.1, "color": color}
            if len(runs) > 1:
                style["linestyle"] = _DASHES[number % len(_DASHES)]
            if is_eval:
                style |= {"marker": "o", "markersize": 3.5 if len(columns) <= 60 else 0}
            curves += _draw_attempts(axes, axis, data, columns, name, label, buckets=buckets, style=style)
    _finish(axes, axis, curves)
    if has_marks:
        _draw_marks(axes, runs, axis)
    draw_legend(axes)
    return curves


def _draw_attempts(
    axes: Axes,
    axis: XAxis,
    data: RunData,
    columns: Columns,
    name: str,
    label: str,
    *,
    buckets: int,
    style: dict[str, Any],
) -> list[Curve]:
    """The attempts of a run one by one; what a later attempt trained again is drawn faintly."""
    x, y, attempts = axis.of(data, columns), columns[name], columns["attempt"]
    is_old = data.is_superseded(columns)
    curves, xs, ys = [], [], []
    numbers = np.unique(attempts)
    per_attempt = max(_MIN_BUCKETS, buckets // max(1, len(numbers)))
    for attempt in numbers:
        mine = (attempts == attempt) & ~np.isnan(y)
        kept, old = mine & ~is_old, mine & is_old
        if kept.any():
            kept_x, kept_y = downsample(x[kept], y[kept], per_attempt)
            xs.append(kept_x)
            ys.append(kept_y)
        if old.any():
            old_x, old_y = downsample(x[old], y[old], per_attempt)
            axes.plot(old_x, old_y, **{**style, "alpha": 0.35, "linewidth": 0.9, "marker": None})
            curves.append(Curve(f"{label}, attempt {int(attempt)}, trained again later", old_x, old_y, is_main=False))
    if xs:
        axes.plot(*_joined(xs, ys, has_gaps=axis.seconds > 0), label=label, **style)
        curves.insert(0, Curve(label, np.concatenate(xs), np.concatenate(ys)))
    return curves


def _joined(xs: Sequence[Floats], ys: Sequence[Floats], *, has_gaps: bool) -> tuple[Floats, Floats]:
    """The pieces of a curve as one, by time with a gap where nothing was trained between two attempts."""
    gap = np.array([np.nan] if has_gaps else [])
    return (
        np.concatenate([part for piece in xs for part in (piece, gap)]),
        np.concatenate([part for piece in ys for part in (piece, gap)]),
    )


def _draw_parts(axes: Axes, *, runs: Sequence[RunData], axis: XAxis) -> list[Curve]:
    """Waiting for data and the rest of a step, stacked; of several runs the whole step and the wait as lines."""
    curves: list[Curve] = []
    buckets = max(_MIN_BUCKETS, _MAX_BUCKETS // len(runs))
    for number, data in enumerate(runs):
        columns = data.train
        if "step_seconds" not in columns.names:
            continue
        kept = ~data.is_superseded(columns)
        x, total = axis.of(data, columns)[kept], columns["step_seconds"][kept]
        wait = columns["data_seconds"][kept] if "data_seconds" in columns.names else np.zeros_like(total)
        order = np.argsort(x, kind="stable")
        for values, part, style in ((total, "whole step", "-"), (wait, "waiting for data", (0, (2, 1.5)))):
            label = part if len(runs) == 1 else f"{data.run.id}: {part}"
            shown_x, shown = downsample(x[order], values[order], buckets)
            color = series_color(number if len(runs) > 1 else (0 if part == "whole step" else 2))
            axes.plot(shown_x, shown, color=color, linestyle=style, linewidth=1.1, label=label)
            if len(runs) == 1:
                axes.fill_between(shown_x, 0, shown, color=color, alpha=0.18, linewidth=0)
            curves.append(Curve(label, shown_x, shown))
    _finish(axes, axis, curves, is_from_zero=True)
    draw_legend(axes)
    return curves


def _finish(axes: Axes, axis: XAxis, curves: Sequence[Curve], *, is_from_zero: bool = False) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel(axis.label)
    values = np.concatenate([curve.y for curve in curves] or [np.array([])])
    values = values[np.isfinite(values)]
    if is_from_zero:
        axes.set_ylim(bottom=0)
    elif len(values) and values.min() > 0 and values.max() > _LOG_RATIO * values.min():
        axes.set_yscale("log")
    axes.margins(x=0.02)
    if axis.name == "step":
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))


def _draw_marks(axes: Axes, runs: Sequence[RunData], axis: XAxis) -> None:
    """Restarts and resizes as vertical lines, warnings and checkpoints at the lower edge; of a single run only."""
    if len(runs) != 1:
        return
    data = runs[0]
    edge = axes.get_xaxis_transform()
    for kind, marker in _MARKERS.items():
        marks = data.marks_of(kind)
        if not marks:
            continue
        if kind == "checkpoint":
            marks = marks[:: -(-len(marks) // _MAX_CHECKPOINTS)]
        color = mark_color(kind)
        positions = [axis.at(data, mark.step, mark.time) for mark in marks]
        heights = [0.02 if kind in ("checkpoint", "warning") else 0.97] * len(marks)
        if kind in ("restart", "resize"):
            for mark, x in zip(marks, positions, strict=True):
                line = axes.axvline(x, color=color, linewidth=1, linestyle=":" if kind == "resize" else "--")
                line.set_gid(f"{kind}:{mark.step}")
        (line,) = axes.plot(positions, heights, marker, color=color, transform=edge, clip_on=False, markersize=6)
        line.set_gid(f"{kind}s:{len(marks)}")


def _label(data: RunData, kind: str, runs: Sequence[RunData], name: str) -> str:
    has_both = name in data.train.names and name in data.evaluation.names
    if len(runs) == 1:
        return kind if has_both or name == "loss" else name
    return f"{data.run.id} ({kind})" if has_both else data.run.id
