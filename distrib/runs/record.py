"""A run as its folder tells it: run.json, written by the launcher, and the Run that everyone reads."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from distrib.errors import JobError
from distrib.runs.events import finite, read_events
from distrib.runs.layout import RunLayout
from distrib.runs.newest import newest_event
from distrib.runs.owner import is_dead, this_process
from distrib.runs.storage.local import LocalStorage

if TYPE_CHECKING:
    from distrib.runs.storage.run_store import RunStore

RECORD_FIELDS = (
    *("id", "name", "status", "started", "ended", "first_step_seconds", "error", "result", "attempt"),
    *("request", "schedule", "input_signature", "provenance", "owner", "activity"),
)
"""What run.json holds; `started` and `ended` are Unix seconds, what is not known yet is null."""

STATUSES = ("running", "finished", "failed", "stopped")

_NOT_VALUES = frozenset({"time", "attempt", "event", "step", "epoch", "samples", "eval_seconds"})


class Run:
    """One run: a view of its folder that always says what is there now.

    Args:
        folder: The run's folder, RUNS_DIR/RUN_ID, or its mirror.
        store: Where the run is kept, if that is an object store.
    """

    def __init__(self, folder: Path | str, store: RunStore | None = None) -> None:
        self.layout = RunLayout(Path(folder).absolute())
        self.store = store

    @property
    def folder(self) -> Path:
        """The run's folder, as an absolute path."""
        return self.layout.folder

    @property
    def place(self) -> str | Path:
        """Where the run is kept: its folder, or its URL on an object store."""
        return self.folder if self.store is None else self.store.url

    @property
    def id(self) -> str:
        """The run's id, which is the name of its folder."""
        return self.folder.name

    @property
    def record(self) -> dict[str, Any]:
        """The content of run.json; JobError where the folder has none that can be read."""
        try:
            record = json.loads(self.layout.record_file.read_bytes())
        except FileNotFoundError:
            raise JobError(f"{self.folder} is not a run: it has no run.json") from None
        except (OSError, ValueError) as error:
            raise JobError(f"{self.layout.record_file} cannot be read: {error}") from None
        if not _is_record(record):
            raise JobError(f"{self.layout.record_file} cannot be read: it is not the record of a run")
        return cast(dict[str, Any], record)

    @property
    def status(self) -> str:
        """`running`, `finished`, `failed` or `stopped`; a run whose launcher has died is failed."""
        record = self.record
        return "failed" if _is_abandoned(record) else str(record["status"])

    @property
    def error(self) -> dict[str, Any] | None:
        """Why the run failed: rank, host, type, message, traceback and kind (user, infrastructure or hang)."""
        record = self.record
        error: dict[str, Any] | None = _launcher_died(record["owner"]) if _is_abandoned(record) else record.get("error")
        return error

    @property
    def metrics(self) -> dict[str, Any]:
        """The values of the last evaluation, loss included; without one, the last training loss."""
        event = newest_event(self.layout.metrics_file, "eval")
        if event is not None:
            return measured_values(event)
        event = newest_event(self.layout.metrics_file, "train")
        return {} if event is None else {"loss": event.get("loss")}

    @property
    def steps(self) -> tuple[int, int | None]:
        """Optimizer steps completed, as far as events tell, and planned; None where that is not known."""
        event = newest_event(self.layout.metrics_file, "train") or {}
        schedule = self.record.get("schedule") or {}
        return event.get("step", 0), schedule.get("total_steps")

    @property
    def duration_seconds(self) -> float | None:
        """Seconds from start to end: until now for a running run, to its last event where its launcher died."""
        record = self.record
        started, ended = record.get("started"), record.get("ended")
        if ended is None and _is_abandoned(record):
            ended = (newest_event(self.layout.metrics_file, "train") or {}).get("time")
        elif ended is None and record.get("status") == "running":
            ended = time.time()
        return None if started is None or ended is None else max(0.0, ended - started)

    @property
    def weights(self) -> Path:
        """The file of the final weights, which is there once the run has finished; fetched if it lies on a store."""
        return self._local(self.layout.weights_file)

    @property
    def best_weights(self) -> Path:
        """The file of the best weights, which is there once an evaluation has found some; fetched likewise."""
        return self._local(self.layout.best_file)

    def _local(self, file: Path) -> Path:
        if self.store is not None and not file.exists():
            with contextlib.suppress(FileNotFoundError):
                self.store.fetch(file)
        return file

    def refresh(self) -> None:
        """Looks anew at a run on an object store, of which this is a local copy; a folder is looked at anyway."""
        if self.store is not None:
            self.store.view(self.store.storage.get_json(self.layout.record_file.name))

    def events(self) -> list[dict[str, Any]]:
        """Everything that metrics.jsonl tells, in order."""
        return read_events(self.layout.metrics_file)

    def __repr__(self) -> str:
        return f"Run({str(self.place)!r})"


def measured_values(event: Mapping[str, Any]) -> dict[str, Any]:
    """What an eval event measured, by name: its loss and its metrics."""
    return {name: value for name, value in event.items() if name not in _NOT_VALUES}


def create_record(
    folder: Path,
    *,
    name: str,
    request: Mapping[str, Any],
    schedule: Mapping[str, Any] | None,
    provenance: Mapping[str, Any],
    input_signature: Any = None,
    started: float | None = None,
) -> Run:
    """Creates the folder of a run and its run.json: running, and owned by this process.

    Args:
        folder: The run's folder; it may exist.
        name: The job's name.
        request: The plan's request, as plain data.
        schedule: The plan's schedule, as plain data.
        provenance: As `collect_provenance` gives it.
        input_signature: The shapes and types of a batch, where they are known.
        started: Unix seconds from which the run's duration counts; by default now.
    """
    run = Run(folder)
    known = {
        "id": run.id,
        "name": name,
        "status": "running",
        "started": time.time() if started is None else started,
        "request": dict(request),
        "schedule": None if schedule is None else dict(schedule),
        "input_signature": input_signature,
        "provenance": dict(provenance),
        "owner": this_process(),
    }
    _write(run.folder, {field: known.get(field) for field in RECORD_FIELDS})
    return run


def update_record(folder: Path, **changes: Any) -> None:
    """Replaces fields of run.json, all at once; only the run's launcher may, as the last writer wins.

    A status other than `running` also notes the time as `ended`, unless `changes` say it themselves.
    """
    unknown = changes.keys() - set(RECORD_FIELDS)
    if unknown or changes.get("status", "running") not in STATUSES:
        raise ValueError(f"run.json cannot hold {changes}")
    if changes.get("status", "running") != "running":
        changes = {"ended": time.time(), **changes}
    _write(folder, {**Run(folder).record, **changes})


def publish_record(run: Run, **changes: Any) -> None:
    """As `update_record`, and puts run.json on the store where the run is kept on one.

    Raises:
        OSError: It cannot be written.
        StorageError: It cannot be put on the store.
    """
    update_record(run.folder, **changes)
    if run.store is not None:
        run.store.publish(run.layout.record_file)


def list_runs(runs_folder: Path) -> list[Run]:
    """The runs of a folder, newest first; those whose run.json cannot be read come last."""
    try:
        runs = [Run(file.parent) for file in runs_folder.glob("*/run.json")]
    except OSError:
        return []
    return newest_first(runs)


def newest_first(runs: Iterable[Run]) -> list[Run]:
    """Runs by when they started; those whose run.json cannot be read come last."""
    return sorted(runs, key=lambda run: (_started(run), run.id), reverse=True)


def _write(folder: Path, record: Mapping[str, Any]) -> None:
    text = json.dumps(finite(dict(record)), indent=1, allow_nan=False) + "\n"
    LocalStorage(folder).put(RunLayout(folder).record_file.name, text.encode())


def _started(run: Run) -> float:
    try:
        started = run.record.get("started")
    except JobError:
        return float("-inf")
    return 0.0 if started is None else float(started)


def _is_record(record: object) -> bool:
    """Whether what was read has the shape that this module writes."""
    if not isinstance(record, dict) or not isinstance(record.get("status"), str):
        return False
    objects = (record.get(field) for field in ("request", "schedule", "provenance", "owner", "error"))
    times = (record.get(field) for field in ("started", "ended", "first_step_seconds"))
    return all(value is None or isinstance(value, dict) for value in objects) and all(
        value is None or isinstance(value, int | float) for value in times
    )


def _is_abandoned(record: Mapping[str, Any]) -> bool:
    """Whether a run says that it is running but the process that ran it is gone."""
    return record.get("status") == "running" and record.get("owner") is not None and is_dead(record["owner"])


def _launcher_died(owner: Mapping[str, Any]) -> dict[str, Any]:
    message = f"the launcher (process {owner.get('pid')}) died without a word; it was killed or its machine went down"
    return {
        "rank": None,
        "host": owner.get("host"),
        "type": "LauncherDied",
        "message": message,
        "traceback": None,
        "kind": "infrastructure",
    }
