"""An experiment as one self-contained HTML file: the answer first, then charts, measurements and predictions."""

from __future__ import annotations

import html
from collections.abc import Sequence
from datetime import UTC, datetime

from distrib.errors import JobError
from distrib.observe.format import num_bytes, number, percent, plural
from distrib.observe.page import document as parts
from distrib.scale.charts import make_charts
from distrib.scale.model import CostModel, fit_model
from distrib.scale.prediction import Prediction, predict
from distrib.scale.result import PARTS, ExperimentResult, MeasuredSize
from distrib.scale.tables import fit_line, result_notes

PREDICTED_TO = 1024
REPORT_FILE = "scale.html"
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
    charts = make_charts(rows, predictions)
    title = f"{result.job}: {result.mode} scaling"
    sections = [
        f"<header><h1>{html.escape(title)}</h1>",
        f'<p class="result">{html.escape(answer(rows))}</p>',
        f'<p class="muted">{html.escape(setup(result))}</p></header>',
        _warning(model),
        parts.section("Charts", parts.figures(charts)),
        parts.section("Measured", _measured_table(rows), parts.bullets(result_notes(result))),
        _prediction_section(predictions, model),
    ]
    return parts.page(f"{title} – distrib scale", sections, charts)


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
    return parts.note(None if model is None else model.warning)


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
    return parts.table("Measured", _MEASURED_HEADER, cells, identifier="measured")


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
    return parts.section(
        "Predicted",
        _warning(model),
        parts.table("Predicted", header, cells, identifier="predicted"),
        parts.bullets([*model.assumptions, fit_line(model)], "Assumptions"),
    )


def _batch(batch: int | None) -> str:
    return "none" if batch is None else f"{batch:,}"
