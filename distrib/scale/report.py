"""An experiment as one self-contained HTML file: the answer first, then charts, measurements and predictions."""

from __future__ import annotations

import html
from collections.abc import Sequence
from datetime import UTC, datetime

from distrib.errors import JobError
from distrib.observe.format import num_bytes, number, percent, plural
from distrib.scale.charts import draw_charts
from distrib.scale.model import CostModel, fit_model
from distrib.scale.prediction import Prediction, predict
from distrib.scale.result import ExperimentResult, MeasuredSize
from distrib.scale.tables import PARTS, fit_line, result_notes

PREDICTED_TO = 1024
REPORT_FILE = "scale.html"
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; padding: 0 16px 48px; max-width: 1240px; color: #222;
  background: #fff; }
h1 { font-size: 1.1rem; font-weight: 600; margin: 16px 0 0; color: #555; overflow-wrap: anywhere; }
.setup { margin: 0; color: #555; font-size: 14px; overflow-wrap: anywhere; }
.answer { font-size: 1.5rem; line-height: 1.3; margin: 8px 0 12px; }
.warning { border-left: 4px solid #a61b1b; background: #fdf1f0; margin: 12px 0; padding: 8px 12px; }
h2 { font-size: 1.05rem; margin: 28px 0 4px; }
.charts { display: flex; flex-wrap: wrap; gap: 8px; }
.charts figure { margin: 0; flex: 1 1 340px; max-width: 400px; }
.charts svg { width: 100%; height: auto; display: block; }
.table { overflow-x: auto; max-width: max-content;
  background: linear-gradient(90deg, #fff 30%, #fff0) left / 40px 100% no-repeat local,
    linear-gradient(270deg, #fff 30%, #fff0) right / 40px 100% no-repeat local,
    linear-gradient(90deg, #0004, #0000) left / 14px 100% no-repeat scroll,
    linear-gradient(270deg, #0004, #0000) right / 14px 100% no-repeat scroll; }
.table:focus-visible { outline: 2px solid #4477aa; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 3px 4px; border-bottom: 1px solid #ddd; white-space: nowrap; }
th { font-weight: 600; }
"""
_MEASURED_HEADER = (
    "workers", "batch", "seconds/step", "95 % interval", "samples/s", "efficiency", "limited by", *PARTS, "memory",
    "cores busy",
)  # fmt: skip
_PREDICTED_HEADER = ("workers", "seconds/step", "range", "efficiency", "range", "limited by", "batch for 90 %")


def make_report(result: ExperimentResult) -> str:
    """The experiment as HTML.

    Raises:
        ReportLibraryMissingError: matplotlib is not installed.
    """
    rows = result.measured
    model, predictions = _predictions(result, rows)
    charts = "".join(f"<figure>{chart}</figure>" for chart in (draw_charts(rows, predictions) if rows else []))
    title = f"{result.job}: {result.mode} scaling"
    return "\n".join([
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<link rel="icon" href="data:,">',
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{html.escape(title)}</h1>",
        f'<p class="setup">{html.escape(setup(result))}</p>',
        f'<p class="answer">{html.escape(answer(rows))}</p>',
        _warning(model),
        f'<div class="charts">{charts}</div>',
        _measured_table(rows),
        _list("Notes", result_notes(result)),
        _prediction_section(predictions, model),
        "</body></html>\n",
    ])  # fmt: skip


def answer(rows: Sequence[MeasuredSize]) -> str:
    """The result in a sentence or two."""
    if not rows:
        return "No size could be measured."
    last = rows[-1]
    workers = plural(last.workers, "worker")
    if last.speedup is None or last.efficiency_interval is None:
        rate = number(last.samples_per_second)
        return f"{workers}: {rate} samples/s. A single size says nothing about scaling."
    interval = " … ".join(map(percent, last.efficiency_interval))
    limit = "" if last.limit is None else f" Limited by {last.limit}."
    return (
        f"{workers}: {last.speedup:.2f} times the throughput of {rows[0].workers}, an efficiency of "
        f"{percent(last.efficiency)} ({interval}).{limit}"
    )


def setup(result: ExperimentResult) -> str:
    """When and where the experiment ran, and how it was set up."""
    runs = [sample.measurement for sample in result.samples if sample.measurement is not None]
    parts = []
    if result.started is not None:
        parts.append(f"{datetime.fromtimestamp(result.started, UTC):%Y-%m-%d %H:%M} UTC")
    if runs:
        hosts = sorted({host for run in runs for host in run.hosts})
        named = ", ".join(hosts[:3]) + (f" and {len(hosts) - 3} more" if len(hosts) > 3 else "")
        parts.append(f"{plural(len(hosts), 'host')} ({named})")
        parts.append(runs[-1].device_name or runs[-1].device)
    origin = result.provenance or {}
    if origin.get("platform"):
        parts.append(f"{origin['platform']}, {plural(int(origin.get('num_cpus') or 0), 'CPU')}")
    parts += [f"{package} {origin[package]}" for package in ("torch", "ray", "distrib") if origin.get(package)]
    parts.append(f"launcher {result.launcher}")
    parts.append(f"{result.repeats} × {plural(result.steps, 'step')} at each size")
    return " · ".join(parts)


def _predictions(result: ExperimentResult, rows: Sequence[MeasuredSize]) -> tuple[CostModel | None, list[Prediction]]:
    """The model, and predictions for each doubling of the largest measured size."""
    try:
        model = fit_model(result)
    except JobError:
        return None, []
    sizes = []
    size = rows[-1].workers * 2
    while size <= PREDICTED_TO:
        sizes.append(size)
        size *= 2
    return model, predict(model, sizes)


def _warning(model: CostModel | None) -> str:
    return "" if model is None or model.warning is None else f'<p class="warning">{html.escape(model.warning)}</p>'


def _measured_table(rows: Sequence[MeasuredSize]) -> str:
    cells = [
        (
            f"{row.workers:,}",
            f"{row.global_batch_size:,}",
            number(row.step_seconds),
            " … ".join(map(number, row.interval)),
            number(row.samples_per_second),
            percent(row.efficiency),
            row.limit or "–",
            *(number(getattr(row.split, part)) for part in PARTS),
            num_bytes(row.peak_memory_bytes),
            percent(row.cores_busy),
        )
        for row in rows
    ]
    return _table("Measured", _MEASURED_HEADER, cells) if rows else ""


def _prediction_section(predictions: Sequence[Prediction], model: CostModel | None) -> str:
    if model is None:
        return ""
    has_goal = model.warning is None
    header = _PREDICTED_HEADER if has_goal else _PREDICTED_HEADER[:-1]
    cells = [
        (
            f"{row.workers:,}",
            number(row.step_seconds),
            " … ".join(map(number, row.range)),
            percent(row.efficiency),
            " … ".join(map(percent, row.efficiency_range)),
            row.limit,
            *([_batch(row.batch_for_90_percent)] if has_goal else []),
        )
        for row in predictions
    ]
    table = _table("Predicted", header, cells, _warning(model))
    return table + _list("Assumptions", [*model.assumptions, fit_line(model)])


def _batch(batch: int | None) -> str:
    return "none" if batch is None else f"{batch:,}"


def _table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]], preface: str = "") -> str:
    """A titled table that scrolls sideways by touch, mouse and keyboard, with a shadow where it continues."""
    head = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return (
        f'<h2>{title}</h2>{preface}<div class="table" tabindex="0" role="region" aria-label="{title}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _list(title: str, items: Sequence[str]) -> str:
    shown = "".join(f"<li>{html.escape(item)}</li>" for item in items)
    return f"<h2>{title}</h2><ul>{shown}</ul>" if items else ""
