"""The runs of a folder as rows: what is known of each, which ones are asked for, and the table."""

from __future__ import annotations

import difflib
import re
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from distrib.errors import JobError
from distrib.observe.format import DAY, HOUR, MINUTE, age, clock, number, values
from distrib.observe.spec_fields import differing_fields, short_names, spec_fields
from distrib.runs.find import for_each

if TYPE_CHECKING:
    from distrib.runs.run import Run

Row = dict[str, Any]
MAX_SPEC_COLUMNS = 6
MIN_RESULT_WIDTH = 16
_GAP = "  "
_HEADER = ["run", "status", "steps", "age", "took"]
_SINCE = re.compile(r"(\d+(?:\.\d+)?)\s*(m|min|minutes?|h|hours?|d|days?|w|weeks?)")
_SECONDS = {"m": MINUTE, "h": HOUR, "d": DAY, "w": 7 * DAY}
_METRIC = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)\s*(?:(>=|<=|>|<)\s*([-+0-9.eE]+))?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")
_KEYS = {
    "started": "started",
    "took": "duration_seconds",
    "steps": "steps",
    "status": "status",
    "job": "name",
    "run": "id",
}
_DESCENDING = ("started", "took", "steps")


@dataclass(frozen=True)
class Selection:
    """Which runs to list, and in which order.

    Attributes:
        statuses: Only runs with one of these; empty for all.
        job: Only runs of the job with this name.
        since: Only runs that started at this time or later, in Unix seconds.
        metric: Only runs whose result has this metric, as `accuracy` or `accuracy>=0.9`.
        sort: `started`, `took`, `steps`, `status`, `job`, `run` or a metric; with a leading `-` the other way round.
        limit: The most runs to list.
    """

    statuses: Sequence[str] = ()
    job: str | None = None
    since: float | None = None
    metric: str | None = None
    sort: str = "started"
    limit: int | None = None

    def apply(self, rows: Sequence[Row]) -> list[Row]:
        """The rows that are asked for, in order; those without a value to sort by come last.

        Raises:
            JobError: `sort` is neither a key nor a metric of any run.
            ValueError: `metric` cannot be read.
        """
        has_metric = _metric_filter(self.metric)
        chosen = [
            row
            for row in rows
            if (not self.statuses or row["status"] in self.statuses)
            and (self.job is None or row.get("name") == self.job)
            and (self.since is None or (row.get("started") or 0.0) >= self.since)
            and has_metric(row.get("metrics") or {})
        ]
        name = self.sort.removeprefix("-")
        is_descending = (name in _DESCENDING or (name not in _KEYS and name != "loss")) != self.sort.startswith("-")
        with_value = [row for row in chosen if _sort_value(row, name) is not None]
        without = [row for row in chosen if _sort_value(row, name) is None]
        if rows and name not in _KEYS and (known := metric_names(rows)) and name not in known:
            raise JobError(_unknown_key(name, known), field="--sort")
        with_value.sort(key=lambda row: _sort_value(row, name), reverse=is_descending)
        return [*with_value, *without][: self.limit]

    def missing_metric(self, rows: Sequence[Row]) -> str | None:
        """Why `metric` chooses no run, if no run has it: `no run has accuracy; there is acc`."""
        match = None if self.metric is None else _METRIC.fullmatch(self.metric.strip())
        known = metric_names(rows)
        if match is None or not known or match[1] in known:
            return None
        return f"no run has {match[1]}; there {'is' if len(known) == 1 else 'are'} {', '.join(known)}"


def metric_names(rows: Sequence[Row]) -> list[str]:
    """The names of all values that runs have measured."""
    return sorted({name for row in rows for name in row.get("metrics") or {}})


def row_of(run: Run) -> Row:
    """What the list contains of a run; of one that cannot be read, why."""
    try:
        record, (done, planned) = run.record, run.steps
        return {
            "id": run.id,
            "folder": str(run.location),
            "name": record.get("name"),
            "status": run.status,
            "steps": done,
            "total_steps": planned,
            "metrics": run.metrics,
            "started": record.get("started"),
            "duration_seconds": run.duration_seconds,
            "error": run.error,
        }
    except JobError as error:
        return {"id": run.id, "folder": str(run.location), "status": "unreadable", "error": {"message": str(error)}}


def add_spec_differences(rows: Sequence[Row], runs: Mapping[str, Run]) -> list[str]:
    """Adds to each row, as `spec`, the fields in which runs of one job differ, and returns those fields.

    Runs of different jobs differ in nearly everything, so they have no such fields.
    """
    jobs = {row.get("name") for row in rows if row.get("name") is not None}
    if len(jobs) != 1 or len(rows) < 2:
        return []
    specs = for_each([runs[row["folder"]] for row in rows], spec_fields)
    fields = differing_fields(specs)
    for row, spec in zip(rows, specs, strict=True):
        row["spec"] = {field: spec.get(field) for field in fields}
    return fields


def table_lines(rows: Sequence[Row], fields: Sequence[str], width: int | None) -> list[str]:
    """The runs as aligned columns, one line each.

    Args:
        rows: As `row_of` makes them.
        fields: Fields of their specs to show.
        width: Columns of the terminal; None to cut nothing. Fields that do not fit are left out.
    """
    fields = list(fields)[:MAX_SPEC_COLUMNS]
    while True:
        header = [*_HEADER, *short_names(fields), "result"]
        cells = [header, *([*_cells(row), *_spec_cells(row, fields), _result(row)] for row in rows)]
        widths = [max(map(len, column)) for column in list(zip(*cells, strict=True))[:-1]]
        room = None if width is None else width - sum(widths) - len(_GAP) * len(widths)
        if room is None or room >= MIN_RESULT_WIDTH or not fields:
            break
        fields.pop()
    room = None if room is None else max(MIN_RESULT_WIDTH, room)
    return [
        _GAP.join([*(cell.ljust(size) for cell, size in zip(row, widths, strict=False)), _cut(row[-1], room)]).rstrip()
        for row in cells
    ]


def parse_since(text: str, now: float) -> float:
    """`2 days`, `3h`, `30 min` before `now`, or a date such as `2026-11-25` or `2026-11-25T10:00`, as Unix seconds.

    Raises:
        ValueError: It is neither.
    """
    match = _SINCE.fullmatch(text.strip())
    if match:
        return now - float(match[1]) * _SECONDS[match[2][0]]
    try:
        return datetime.fromisoformat(text.strip()).timestamp()
    except ValueError:
        raise ValueError(f"{text!r} is neither an age such as '2 days' nor a date such as 2026-11-25") from None


def _metric_filter(text: str | None) -> Callable[[Mapping[str, Any]], bool]:
    if text is None:
        return lambda metrics: True
    match = _METRIC.fullmatch(text.strip())
    try:
        bound = float(match[3]) if match and match[3] else 0.0
    except ValueError:
        match = None
    if match is None:
        raise ValueError(f"{text!r} is neither a metric's name nor a condition such as 'accuracy>=0.9'")
    name, comparison = match[1], match[2]
    tests: dict[str | None, Callable[[float], bool]] = {
        None: lambda value: True,
        ">=": lambda value: value >= bound,
        "<=": lambda value: value <= bound,
        ">": lambda value: value > bound,
        "<": lambda value: value < bound,
    }
    return lambda metrics: isinstance(metrics.get(name), int | float) and tests[comparison](metrics[name])


def _unknown_key(name: str, metrics: Sequence[str]) -> str:
    keys = [*_KEYS, *metrics]
    match = difflib.get_close_matches(name, keys, n=1)
    advice = f"did you mean {match[0]}?" if match else f"use one of {', '.join(keys)}"
    return f"no run has {name!r}; {advice}"


def _sort_value(row: Row, name: str) -> Any:
    value = row.get(_KEYS[name]) if name in _KEYS else (row.get("metrics") or {}).get(name)
    return value if isinstance(value, str if name in ("status", "job", "run") else int | float) else None


def _cells(row: Row) -> list[str]:
    if row["status"] == "unreadable":
        return [_one_line(row["id"]), row["status"], "", "", ""]
    steps = f"{row['steps']}" if row["total_steps"] is None else f"{row['steps']}/{row['total_steps']}"
    since = "" if row["started"] is None else age(time.time() - row["started"])
    took = "" if row["duration_seconds"] is None else clock(row["duration_seconds"])
    return [_one_line(row["id"]), row["status"], steps, since, took]


def _spec_cells(row: Row, fields: Sequence[str]) -> list[str]:
    spec = row.get("spec") or {}
    return [_cut(_one_line(_value(spec.get(field))), 20) for field in fields]


def _value(value: Any) -> str:
    if isinstance(value, list | tuple):
        return shlex.join(map(str, value))
    return "–" if value is None else number(value) if isinstance(value, float) else str(value)


def _result(row: Row) -> str:
    """The metrics of a run, or the first line of why it failed."""
    error = row["error"]
    if not error:
        return values(row["metrics"])
    text = ": ".join(str(error[part]) for part in ("type", "message") if error.get(part))
    return _one_line(text.strip().partition("\n")[0])


def _one_line(text: str) -> str:
    return _CONTROL.sub(" ", str(text))


def _cut(text: str, width: int | None) -> str:
    return text if width is None or len(text) <= width else text[: width - 1] + "…"
