"""run.json: the record of a run, which its launcher alone writes."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn, cast

from distrib.errors import JobError
from distrib.runs.events import finite, is_count, is_number
from distrib.runs.files.atomic import atomic_write
from distrib.runs.layout import RunLayout
from distrib.runs.owner import is_dead, this_process

RECORD_FIELDS = (
    *("id", "name", "status", "started", "ended", "first_step_seconds", "error", "result", "attempt"),
    *("request", "schedule", "input_signature", "provenance", "owner", "activity", "launched", "earlier_seconds"),
    "completed_steps",
)
"""What run.json holds; times are Unix seconds, and what is not known yet is null.

`started` is the first launch's, `launched` the newest one's; `earlier_seconds` is how long all launches before that
one took. `completed_steps` is set when a launch ends.
"""

_OBJECTS = ("request", "schedule", "provenance", "owner", "error", "result", "activity")
_NESTED_OBJECTS = {"result": ("train", "eval"), "provenance": ("git", "sources")}
_TIMES = ("started", "ended", "first_step_seconds", "launched", "earlier_seconds")
_END_OF_TIME = 253_402_300_800
"""The year 10000 in Unix seconds; larger times cannot be shown."""

STATUSES = ("running", "finished", "failed", "stopped")


def parse_record(content: bytes, location: Path | str) -> dict[str, Any]:
    """The content of run.json.

    Args:
        content: The file's content.
        location: Where it is, for the message of an error.

    Raises:
        JobError: It is not the record of a run.
    """
    try:
        record = json.loads(content, parse_constant=_refuse, parse_float=_finite_float)
    except (ValueError, RecursionError) as error:
        raise JobError(f"{location} cannot be read: {error}") from None
    if not _is_record(record):
        raise JobError(f"{location} cannot be read: it is not the record of a run")
    return cast(dict[str, Any], record)


def create_record(
    folder: Path,
    *,
    name: str,
    request: Mapping[str, Any],
    schedule: Mapping[str, Any] | None,
    provenance: Mapping[str, Any],
    input_signature: Any = None,
    started: float | None = None,
) -> None:
    """Creates the folder of a run and its run.json, with status `running` and this process as the owner.

    Args:
        folder: The run's folder; it may exist.
        name: The job's name.
        request: The plan's request, as plain data.
        schedule: The plan's schedule, as plain data.
        provenance: As `collect_provenance` returns it.
        input_signature: The shapes and types of a batch, if they are known.
        started: Unix seconds from which the run's duration counts; by default now.
    """
    started = time.time() if started is None else started
    known = {
        "id": folder.name,
        "name": name,
        "status": "running",
        "started": started,
        "request": dict(request),
        "schedule": None if schedule is None else dict(schedule),
        "input_signature": input_signature,
        "provenance": dict(provenance),
        "owner": this_process(),
        "launched": started,
        "earlier_seconds": 0.0,
    }
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder, {field: known.get(field) for field in RECORD_FIELDS})


def update_record(folder: Path, **changes: Any) -> None:
    """Replaces fields of run.json, all at once; only the run's launcher may, as the last writer wins.

    A status other than `running` also sets `ended` to the present time and removes what the run waited for, unless the
    changes include them.
    """
    unknown = changes.keys() - set(RECORD_FIELDS)
    if unknown or changes.get("status", "running") not in STATUSES:
        raise ValueError(f"run.json cannot hold {changes}")
    if changes.get("status", "running") != "running":
        changes = {"ended": time.time(), "activity": None, **changes}
    file = RunLayout(folder).record_file
    _write(folder, {**parse_record(file.read_bytes(), file), **changes})


def is_abandoned(record: Mapping[str, Any]) -> bool:
    """Whether the record says `running` although the launcher has died."""
    return record.get("status") == "running" and record.get("owner") is not None and is_dead(record["owner"])


def error_of(record: Mapping[str, Any]) -> dict[str, Any] | None:
    """Why a run failed, if it did."""
    if not is_abandoned(record):
        error: dict[str, Any] | None = record.get("error")
        return error
    owner = record["owner"]
    message = (
        f"the launcher (process {owner.get('pid')}) died without recording why; it was killed or its machine went down"
    )
    return {
        "rank": None,
        "host": owner.get("host"),
        "type": "LauncherDied",
        "message": message,
        "traceback": None,
        "kind": "infrastructure",
    }


def _write(folder: Path, record: Mapping[str, Any]) -> None:
    text = json.dumps(finite(dict(record)), indent=1, allow_nan=False) + "\n"
    atomic_write(RunLayout(folder).record_file, text)


def _finite_float(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refuse(text)


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number that it can hold")


def _is_record(record: object) -> bool:
    """Whether what was read has the form that this module writes."""
    if not isinstance(record, dict) or not isinstance(record.get("status"), str):
        return False
    known = {field: value for field, value in record.items() if value is not None}
    if not all(isinstance(known.get(field, {}), dict) for field in _OBJECTS):
        return False
    nested = [known.get(field, {}).get(name) for field, names in _NESTED_OBJECTS.items() for name in names]
    slices = known.get("schedule", {}).get("rank_batches") or []
    return (
        isinstance(known.get("name", ""), str)
        and all(value is None or isinstance(value, dict) for value in nested)
        and isinstance(slices, list)
        and all(map(is_count, slices))
        and is_count(known.get("error", {}).get("rank") or 0)
        and all(is_number(known.get(field, 0)) and 0 <= known.get(field, 0) < _END_OF_TIME for field in _TIMES)
        and all(is_count(known.get(field, 0)) for field in ("attempt", "completed_steps"))
    )
