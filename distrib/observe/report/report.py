"""The report on one run, or on several beside each other, as HTML."""

from __future__ import annotations

import html
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from distrib.observe.comparison import change, compare, show_value
from distrib.observe.format import clock, duration, number, plural, rate, short_path, value_pairs
from distrib.observe.page import document as parts
from distrib.observe.report.charts import make_charts
from distrib.observe.report.run_data import RunData, collect
from distrib.observe.resume_command import resume_command
from distrib.observe.summary import failure_line, read_state

if TYPE_CHECKING:
    from distrib.runs.run import Run

_MAX_EVENTS = 500


def make_report(runs: Sequence[Run]) -> str:
    """The page about a run, or about several in comparison.

    Raises:
        JobError: A run's record cannot be read.
        ReportLibraryMissingError: matplotlib is not installed.
    """
    collected = [collect(run) for run in runs]
    charts = make_charts(collected)
    if len(runs) == 1:
        sections = [*_head(collected[0]), parts.section("Charts", _legend(collected[0]), parts.figures(charts))]
        sections += _single(collected[0])
        return parts.page(f"{runs[0].id} – distrib report", sections, charts)
    sections = [*_compared_head(runs), parts.section("Charts", parts.figures(charts))]
    for data in collected:
        sections += _one_of_many(data)
    return parts.page(f"{plural(len(runs), 'run')} compared – distrib report", sections, charts)


def _head(data: RunData) -> list[str]:
    """Identity, status and result; an error with its cause first."""
    run, status, error = data.run, data.run.status, data.run.error
    state, speed, _ = read_state(run)
    length = data.length
    steps = f"{state.step:,}" + (f" of {length.total_steps:,}" if length else "")
    metrics = ", ".join(value_pairs(run.metrics))
    result = f"{status} at step {steps}" if error else f"{status}: {metrics}".removesuffix(": ")
    request, schedule = data.record.get("request") or {}, data.record.get("schedule") or {}
    workers = state.world_size or schedule.get("world_size")
    seconds = run.duration_seconds
    first_step = data.record.get("first_step_seconds")
    facts = {
        "last result": metrics if error else None,
        "steps": None if error else steps,
        "duration": None if seconds is None else duration(seconds),
        "speed": None if speed is None else rate(speed),
        "first step after": None if first_step is None else duration(first_step),
        "workers": None if workers is None else f"{workers} on {request.get('device', '?')}",
        "restarts": str(state.num_restarts),
        "checkpoints": str(len(data.marks_of("checkpoint"))),
        "now": state.activity if status == "running" else None,
    }
    return [
        f"<header><h1>{html.escape(run.id)}</h1>",
        f'<p class="result"><span class="{html.escape(status)}">{html.escape(result)}</span></p>',
        f'<p class="muted">{html.escape(_made(data))}</p></header>',
        _error(data, error) if error else "",
        _continue(data, status),
        parts.note(data.note),
        parts.facts(facts),
    ]


def _error(data: RunData, error: dict[str, Any]) -> str:
    """The cause in front, then the traceback and where the log is."""
    cause = html.escape(failure_line(error).removeprefix("failed  "))
    kind = {"user": "raised by the job's own code", "infrastructure": "a process, host or connection was lost"}
    known = kind.get(str(error.get("kind")), str(error.get("kind") or ""))
    log = ""
    if error.get("rank") is not None:
        log = f"<p>Log: <code>{html.escape(str(short_path(data.run.layout.rank_log(int(error['rank'])))))}</code></p>"
    trace = parts.preformatted(str(error["traceback"]).strip("\n"), "Traceback") if error.get("traceback") else ""
    return (
        f'<section class="error" aria-label="Error"><p class="cause">{cause}</p>'
        f'<p class="muted">{html.escape(known)}</p>{trace}{log}</section>'
    )


def _continue(data: RunData, status: str) -> str:
    if status not in ("stopped", "failed"):
        return ""
    return f"<p>Continue it with <code>{html.escape(resume_command(data.run))}</code></p>"


def _legend(data: RunData) -> str:
    """What the marks mean; they are told apart by shape as well as by color."""
    shown = {"restart": "▼ dashed line: restart", "resize": "◆ dotted line: resize", "warning": "▲ warning"}
    texts = [text for kind, text in shown.items() if data.marks_of(kind)]
    if data.marks_of("checkpoint"):
        texts.append("| checkpoint")
    if len(data.train) and data.is_superseded(data.train).any():
        texts.append("faint: steps that were trained again after a restart")
    return f'<p class="muted">{html.escape("; ".join(texts))}.</p>' if texts else ""


def _single(data: RunData) -> list[str]:
    return [
        parts.section("Best and last values", _extremes_table(data)),
        parts.section("Where the time went", _time_table(data)),
        parts.section("Events", _events_table(data)),
        parts.section("Ranks", _ranks_table(data)),
        parts.section("Provenance", _provenance_table(data)),
        parts.section("Job", parts.preformatted(_spec(data), "Job spec")),
    ]


def _one_of_many(data: RunData) -> list[str]:
    error = data.run.error
    return [
        parts.section(
            data.run.id,
            _error(data, error) if error else "",
            parts.note(data.note),
            parts.details("Best and last values", _extremes_table(data)),
            parts.details("Where the time went", _time_table(data)),
            parts.details("Events", _events_table(data)),
            parts.details("Ranks", _ranks_table(data)),
            parts.details("Provenance", _provenance_table(data)),
            parts.details("Job", parts.preformatted(_spec(data), "Job spec")),
        )
    ]


def _compared_head(runs: Sequence[Run]) -> list[str]:
    compared = compare(runs)
    names = [run.id for run in runs]
    has_change = len(runs) == 2
    header = ["field", *names, *(["change"] if has_change else [])]

    def rows(part: str) -> list[list[str]]:
        return [
            [name, *(show_value(name, value) for value in values), *([change(name, values)] if has_change else [])]
            for name, values in compared[part].items()
        ]

    same = "" if compared["spec"] else parts.note("The jobs have the same spec.")
    return [
        f"<header><h1>{html.escape(' · '.join(names))}</h1>",
        f'<p class="result">{html.escape(plural(len(runs), "run"))} compared</p></header>',
        parts.section("Results", parts.table("Results", header, rows("result"), identifier="results")),
        parts.section("Differing fields", same, parts.table("Fields", header, rows("spec"), identifier="fields")),
        parts.section("Differing provenance", parts.table("Provenance", header, rows("provenance"))),
    ]


def _extremes_table(data: RunData) -> str:
    """The lowest, highest and last value of the loss and of each metric, with their steps."""
    import numpy as np

    rows = []
    for kind, columns in (("evaluation", data.evaluation), ("train", data.train)):
        kept = ~data.is_superseded(columns) if len(columns) else np.array([], dtype=bool)
        for name in columns.names:
            if name in ("step", "time", "attempt", "samples", "step_seconds", "data_seconds") or name[:2] == "lr":
                continue
            values, steps = columns[name][kept], columns["step"][kept]
            known = ~np.isnan(values)
            if not known.any():
                continue
            values, steps = values[known], steps[known]
            low, high = int(values.argmin()), int(values.argmax())
            rows.append([
                f"{name} ({kind})",
                number(float(values[low])), f"{int(steps[low]):,}",
                number(float(values[high])), f"{int(steps[high]):,}",
                number(float(values[-1])),
            ])  # fmt: skip
    header = ["value", "lowest", "at step", "highest", "at step", "last"]
    return parts.table("Best and last values", header, rows, identifier="extremes")


def _time_table(data: RunData) -> str:
    """The run's duration by what it was spent on."""
    import numpy as np

    total = data.run.duration_seconds
    if not total or not len(data.train):
        return ""
    seconds, samples = data.train["step_seconds"], data.train["step"]
    steps = np.diff(samples, prepend=samples[0] - 1).clip(min=0)
    same = np.diff(data.train["attempt"], prepend=data.train["attempt"][0]) == 0
    steps = np.where(same, steps, 1)
    in_steps = float(np.nansum(seconds * steps))
    waiting = float(np.nansum(data.train["data_seconds"] * steps)) if "data_seconds" in data.train.names else 0.0
    known = {
        "forward, backward and update": max(0.0, in_steps - waiting),
        "waiting for data": waiting,
        "evaluation": data.overhead["evaluation"],
        "held up by checkpoints": data.overhead["checkpoints"],
    }
    known["start, restarts and the rest"] = max(0.0, total - sum(known.values()))
    rows = [[name, duration(value), f"{value / total:.0%}"] for name, value in known.items()]
    return parts.table("Where the time went", ["part", "time", "share"], rows, identifier="times")


def _events_table(data: RunData) -> str:
    """Restarts, resizes, warnings and checkpoints in order; of many checkpoints the first and the last ones."""
    marks = data.marks
    checkpoints = data.marks_of("checkpoint")
    left_out = 0
    if len(checkpoints) > 20:
        hidden = set(map(id, checkpoints[10:-10]))
        left_out = len(hidden)
        marks = [mark for mark in marks if id(mark) not in hidden]
    left_out += max(0, len(marks) - _MAX_EVENTS)
    rows = [
        [mark.kind, f"{mark.step:,}", clock(max(0.0, float(data.elapsed(mark.time)))), str(mark.attempt), mark.message]
        for mark in marks[:_MAX_EVENTS]
    ]
    shown = parts.table("Events", ["event", "step", "time", "attempt", "message"], rows, identifier="events")
    return shown + (f'<p class="muted">{left_out:,} more are left out.</p>' if left_out else "")


def _ranks_table(data: RunData) -> str:
    """What is known about each rank: its slice of a batch, where it ran, and how it ended."""
    schedule = data.record.get("schedule") or {}
    slices = schedule.get("rank_batches") or []
    error = data.run.error or {}
    rows = []
    for rank in range(max(len(slices), len(data.ranks))):
        known = data.ranks[rank] if rank < len(data.ranks) else {}
        log = data.run.layout.rank_log(rank)
        state = "failed first" if error.get("rank") == rank else data.run.status
        rows.append([
            str(rank),
            str(known.get("host") or (error.get("host") if error.get("rank") == rank else None) or "–"),
            str(known.get("device") or "–"),
            f"{slices[rank]:,}" if rank < len(slices) else "–",
            state,
            str(short_path(log)) if log.exists() else "–",
        ])  # fmt: skip
    return parts.table(
        "Ranks", ["rank", "host", "device", "samples of a batch", "status", "log"], rows, identifier="ranks"
    )


def _provenance_table(data: RunData) -> str:
    provenance = data.record.get("provenance") or {}
    git = provenance.get("git") or {}
    commit = git.get("commit")
    command = provenance.get("command")
    values = {
        "command": " ".join(map(str, command)) if isinstance(command, list) else None,
        "commit": f"{commit}{', with uncommitted changes' if git.get('dirty') else ''}" if commit else None,
        "folder of the job": provenance.get("spec_folder"),
        "host": provenance.get("host"),
        "platform": provenance.get("platform"),
        "CPUs": provenance.get("num_cpus"),
        **{name: provenance.get(name) for name in ("python", "torch", "ray", "distrib")},
        "run": short_path(data.run.location),
    }
    rows = [[name, str(value)] for name, value in values.items() if value is not None]
    return parts.table("Provenance", ["field", "value"], rows, identifier="provenance")


def _spec(data: RunData) -> str:
    try:
        return data.run.job_file.read_text(encoding="utf-8", errors="replace").rstrip()
    except OSError as error:
        return f"job.yaml cannot be read: {error.strerror}"


def _made(data: RunData) -> str:
    """The job, when the run began and when this page was made."""
    started = _when(data.record.get("started"))
    texts = [
        f"job {data.record.get('name') or '–'}",
        f"started {started}" if started else "",
        f"report of {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    ]
    return ", ".join(text for text in texts if text)


def _when(seconds: Any) -> str | None:
    if not isinstance(seconds, int | float):
        return None
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
