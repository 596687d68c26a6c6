"""An experiment as one self-contained HTML file: the answer first, then curves, parts of a step and the prediction."""

from __future__ import annotations

import html
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from distrib.errors import DistribError, JobError
from distrib.observe.format import num_bytes, number, plural
from distrib.scale.predict import CostModel, limit, make_model, predict
from distrib.scale.results import Record
from distrib.scale.table import percent

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.axes import Axes

PREDICTED_TO = 1024
REPORT_FILE = "scale.html"
_PARTS = {"compute": "#4477aa", "communication": "#ee6677", "optimizer": "#ccbb44", "data": "#66ccee"}
_MEASURED, _PREDICTED, _IDEAL = "#4477aa", "#aa3377", "#999999"
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; padding: 0 16px 48px; max-width: 1240px; color: #222; }
h1 { font-size: 1.1rem; font-weight: 600; margin: 16px 0 0; color: #555; overflow-wrap: anywhere; }
.answer { font-size: 1.5rem; line-height: 1.3; margin: 4px 0 12px; }
h2 { font-size: 1.05rem; margin: 28px 0 4px; }
.charts { display: flex; flex-wrap: wrap; gap: 8px; }
.charts figure { margin: 0; flex: 1 1 340px; max-width: 400px; }
.charts svg { width: 100%; height: auto; display: block; }
.table { overflow-x: auto; }
table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 3px 8px; border-bottom: 1px solid #ddd; white-space: nowrap; }
th { font-weight: 600; }
td:last-child, th:last-child { padding-right: 0; }
"""


class ReportLibraryMissingError(DistribError):
    """The library that draws the charts is not installed."""


def make_report(result: Record) -> str:
    """The experiment as HTML.

    Raises:
        ReportLibraryMissingError: matplotlib is not installed.
    """
    rows = [row for row in result["sizes"] if row["status"] == "measured"]
    model, predictions = _predictions(result, rows)
    charts = []
    if rows:
        charts = [
            _chart(lambda axes: _draw_efficiency(axes, rows, predictions), "efficiency"),
            _chart(lambda axes: _draw_throughput(axes, rows, predictions), "samples/s"),
            _chart(lambda axes: _draw_split(axes, rows), "seconds of a step"),
        ]
    figures = "".join(f"<figure>{chart}</figure>" for chart in charts)
    title = f"{result['job']}: {result['mode']} scaling"
    return "\n".join([
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<link rel="icon" href="data:,">',
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{html.escape(title)}</h1>",
        f'<p class="answer">{html.escape(answer(rows, model))}</p>',
        f'<div class="charts">{figures}</div>',
        _measured_table(rows),
        _notes(result),
        _prediction_table(predictions, model),
        "</body></html>\n",
    ])  # fmt: skip


def answer(rows: Sequence[Record], model: CostModel | None) -> str:
    """What the experiment says, in a sentence or two."""
    if not rows:
        return "No size could be measured."
    last = rows[-1]
    if last["efficiency"] is None:
        rate = number(last["samples_per_second"])
        return f"{plural(last['workers'], 'worker')}: {rate} samples/s. A single size tells nothing of scaling."
    low, high = last["efficiency_interval"]
    text = (
        f"{plural(last['workers'], 'worker')} do {last['speedup']:.2f} times the work of {rows[0]['workers']}: "
        f"{percent(last['efficiency'])} efficient ({percent(low)} … {percent(high)})."
    )
    return f"{text} Limited by {limit(model, last['workers'])}." if model else text


def _predictions(result: Record, rows: Sequence[Record]) -> tuple[CostModel | None, list[Record]]:
    try:
        model = make_model(result)
    except JobError:
        return None, []
    sizes = []
    size = rows[-1]["workers"] * 2
    while size <= PREDICTED_TO:
        sizes.append(size)
        size *= 2
    return model, predict(model, sizes)


def _chart(draw: Callable[[Any], None], label: str) -> str:
    """A small chart as SVG, its text as text."""
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError:
        raise ReportLibraryMissingError(
            "scale.html needs matplotlib, which is not installed: pip install 'distrib[scale]', and then the same "
            "command with --resume writes it"
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


def _errors(rows: Sequence[Record], value: Callable[[Record, float], float]) -> list[list[float]]:
    """How far intervals reach below and above a value that follows from a step's seconds."""
    below, above = [], []
    for row in rows:
        middle = value(row, row["step_seconds"])
        ends = [value(row, seconds) for seconds in row["interval"]]
        below.append(max(0.0, middle - min(ends)))
        above.append(max(0.0, max(ends) - middle))
    return [below, above]


def _use_sizes(axes: Axes, rows: Sequence[Record], predictions: Sequence[Record]) -> None:
    sizes = [row["workers"] for row in (*rows, *predictions)]
    shown = sizes if len(sizes) <= 7 else [size for number_, size in enumerate(sizes) if number_ % 2 == 0]
    axes.set_xscale("log", base=2)
    axes.set_xticks(shown, [f"{size:,}" for size in shown])
    axes.minorticks_off()


def _draw_efficiency(axes: Axes, rows: Sequence[Record], predictions: Sequence[Record]) -> None:
    axes.axhline(1, color=_IDEAL, linestyle="--", linewidth=1, label="ideal")
    known = [row for row in rows if row["efficiency"] is not None]
    if known:
        values = [row["efficiency"] for row in known]
        ends = [row["efficiency_interval"] for row in known]
        errors = [
            [max(0.0, value - low) for value, (low, _) in zip(values, ends, strict=True)],
            [max(0.0, high - value) for value, (_, high) in zip(values, ends, strict=True)],
        ]
        sizes = [row["workers"] for row in known]
        axes.errorbar(sizes, values, yerr=errors, color=_MEASURED, marker="o", capsize=3, label="measured")
    _draw_prediction(axes, predictions, "efficiency", "efficiency_range")
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    _use_sizes(axes, rows, predictions)
    axes.legend(frameon=False)


def _draw_throughput(axes: Axes, rows: Sequence[Record], predictions: Sequence[Record]) -> None:
    each = rows[0]["samples_per_second"] / rows[0]["workers"]
    sizes = [row["workers"] for row in (*rows, *predictions)]
    axes.plot(sizes, [each * size for size in sizes], color=_IDEAL, linestyle="--", linewidth=1, label="ideal")
    errors = _errors(rows, lambda row, seconds: row["global_batch_size"] / seconds)
    measured = [row["samples_per_second"] for row in rows]
    axes.errorbar(
        [row["workers"] for row in rows], measured, yerr=errors, color=_MEASURED, marker="o", capsize=3,
        label="measured",
    )  # fmt: skip
    ranged = [
        {**row, "rates": sorted(row["global_batch_size"] / seconds for seconds in row["range"])} for row in predictions
    ]
    _draw_prediction(axes, ranged, "samples_per_second", "rates")
    axes.set_yscale("log")
    axes.legend(frameon=False)
    _use_sizes(axes, rows, predictions)


def _draw_prediction(axes: Axes, predictions: Sequence[Record], value: str, ends: str) -> None:
    if not predictions:
        return
    sizes = [row["workers"] for row in predictions]
    lows, highs = [row[ends][0] for row in predictions], [row[ends][1] for row in predictions]
    axes.fill_between(sizes, lows, highs, color=_PREDICTED, alpha=0.15, linewidth=0)
    axes.plot(sizes, [row[value] for row in predictions], color=_PREDICTED, linestyle=":", label="predicted, range")


def _draw_split(axes: Axes, rows: Sequence[Record]) -> None:
    names = [f"{row['workers']:,}" for row in rows]
    bottoms = [0.0] * len(rows)
    for part, color in _PARTS.items():
        values = [row["split"][part] for row in rows]
        axes.bar(names, values, bottom=bottoms, color=color, label=part, width=0.6)
        bottoms = [bottom + value for bottom, value in zip(bottoms, values, strict=True)]
    axes.set_ylim(top=1.35 * max(bottoms))
    axes.legend(frameon=False, ncols=2, loc="upper right")


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="table"><table><tr>{head}</tr>{body}</table></div>'


def _measured_table(rows: Sequence[Record]) -> str:
    header = (
        "workers",
        "batch",
        "seconds/step",
        "95 % interval",
        "samples/s",
        "efficiency",
        *_PARTS,
        "memory",
        "cores busy",
    )
    cells = [
        (
            f"{row['workers']:,}",
            f"{row['global_batch_size']:,}",
            number(row["step_seconds"]),
            " … ".join(map(number, row["interval"])),
            number(row["samples_per_second"]),
            percent(row["efficiency"]),
            *(number(row["split"][part]) for part in _PARTS),
            num_bytes(row["peak_memory_bytes"]),
            percent(row["cores_busy"]),
        )
        for row in rows
    ]
    return f"<h2>Measured</h2>{_table(header, cells)}" if rows else ""


def _notes(result: Record) -> str:
    notes = [
        f"{plural(row['workers'], 'worker')}: {note}"
        for row in result["sizes"]
        for note in ([f"failed: {row['error']}"] if row.get("error") else []) + row.get("notes", [])
    ]
    return _list("To know", notes)


def _prediction_table(predictions: Sequence[Record], model: CostModel | None) -> str:
    if model is None:
        return ""
    header = ("workers", "seconds/step", "range", "efficiency", "range", "limited by", "batch for 90 %")
    cells = [
        (
            f"{row['workers']:,}",
            number(row["step_seconds"]),
            " … ".join(map(number, row["range"])),
            percent(row["efficiency"]),
            " … ".join(map(percent, row["efficiency_range"])),
            row["limit"],
            "none" if row["batch_for_90_percent"] is None else f"{row['batch_for_90_percent']:,}",
        )
        for row in predictions
    ]
    met = ", ".join(f"{residual:+.1%} at {workers}" for workers, residual in model.residuals.items())
    assumed = [*model.notes, f"the model against what was measured: {met}"]
    return f"<h2>Predicted</h2>{_table(header, cells)}{_list('Assumed', assumed)}"


def _list(title: str, items: Sequence[str]) -> str:
    shown = "".join(f"<li>{html.escape(item)}</li>" for item in items)
    return f"<h2>{title}</h2><ul>{shown}</ul>" if items else ""
