"""A run: everything that is known about it, wherever it is kept."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from distrib.errors import JobError
from distrib.runs.backwards import MAX_SEARCHED_LINES, newest_event, newest_step
from distrib.runs.events import EVENT_FIELDS, parse_event, read_events
from distrib.runs.files.atomic import atomic_write
from distrib.runs.layout import RunLayout
from distrib.runs.record import create_record, error_of, is_abandoned, parse_record, update_record
from distrib.runs.storage.open import open_run
from distrib.runs.storage.protocols import CheckpointStorage

_NOT_VALUES = frozenset({"time", "attempt", "event", "step", "epoch", "samples", "eval_seconds"})


class Run:
    """One run, in a local folder or on an object store.

    Of a run in a folder, every property is up to date. Of one on an object store, record and events are as they were
    when they were first needed, until `refresh` is called.

    Args:
        location: The run's folder, RUNS_DIR/RUN_ID, or its URL on an object store.
        is_training: Whether this process will train the run.

    Attributes:
        storage: Where the run is kept.
    """

    def __init__(self, location: Path | str, *, is_training: bool = False) -> None:
        self.storage = open_run(location, is_training=is_training)

    @property
    def location(self) -> Path | str:
        """The run's folder as an absolute path, or its URL."""
        return self.storage.location

    @property
    def layout(self) -> RunLayout:
        """The run's files on this host: the run itself, or a mirror of it."""
        return self.storage.layout

    @property
    def folder(self) -> Path:
        """The run's folder on this host: the run itself, or a mirror of it."""
        return self.layout.folder

    @property
    def id(self) -> str:
        """The run's id, which is the name of its folder."""
        return self.folder.name

    @property
    def checkpoints(self) -> CheckpointStorage:
        """The run's checkpoints."""
        return self.storage.checkpoints

    @property
    def record(self) -> dict[str, Any]:
        """The content of run.json; JobError if there is none that can be read."""
        file = self.storage.location_of(self.layout.record_file)
        try:
            content = self.storage.read_record()
        except FileNotFoundError:
            raise JobError(f"{self.location} is not a run: it has no run.json") from None
        except OSError as error:
            raise JobError(f"{file} cannot be read: {error.strerror or error}") from None
        return parse_record(content, file)

    @property
    def exists(self) -> bool:
        """Whether there is a record; it may be unreadable."""
        try:
            self.storage.read_record()
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True
        return True

    @property
    def status(self) -> str:
        """`running`, `finished`, `failed` or `stopped`; a run whose launcher has died is failed."""
        record = self.record
        return "failed" if is_abandoned(record) else str(record["status"])

    @property
    def error(self) -> dict[str, Any] | None:
        """Why the run failed: rank, host, type, message, traceback and kind (user, infrastructure or hang)."""
        return error_of(self.record)

    @property
    def metrics(self) -> dict[str, Any]:
        """The values of the last evaluation, loss included; without a recent one, those of training."""
        event = self.newest_event("eval", MAX_SEARCHED_LINES)
        if event is not None:
            return measured_values(event)
        event = self.newest_event("train", MAX_SEARCHED_LINES)
        return {} if event is None else {**logged_values(event), "loss": event.get("loss")}

    @property
    def steps(self) -> tuple[int, int | None]:
        """Optimizer steps completed, as far as events report them, and planned; None if that is not known."""
        record = self.record
        completed = record.get("completed_steps")
        if completed is None:
            completed = newest_step(self.storage.events_backwards())
        return completed, (record.get("schedule") or {}).get("total_steps")

    @property
    def duration_seconds(self) -> float | None:
        """Seconds that all launches took together; the newest one counts until now if it is still running."""
        record = self.record
        if record.get("ended") is None and record.get("status") == "running" and not is_abandoned(record):
            return self._duration_until(time.time())
        return self.recorded_seconds

    @property
    def recorded_seconds(self) -> float | None:
        """Seconds that all launches took together, until the end or, without a recorded end, until the last event."""
        ended = self.record.get("ended")
        return self._duration_until(self._last_event_time() if ended is None else ended)

    def _duration_until(self, ended: float | None) -> float | None:
        record = self.record
        launched = record.get("launched") or record.get("started")
        if launched is None or ended is None:
            return None
        return float(record.get("earlier_seconds") or 0.0) + max(0.0, ended - float(launched))

    @property
    def job_file(self) -> Path:
        """The job spec as used; downloaded from an object store."""
        self.storage.fetch(self.layout.job_file)
        return self.layout.job_file

    @property
    def metrics_file(self) -> Path:
        """The file of events; downloaded from an object store."""
        self.storage.fetch_events()
        return self.layout.metrics_file

    @property
    def weights(self) -> Path:
        """The file of the final weights, which exists once the run has finished; downloaded from an object store."""
        self.storage.fetch(self.layout.weights_file)
        return self.layout.weights_file

    @property
    def best_weights(self) -> Path:
        """The file of the best weights, which exists once an evaluation has found some; downloaded likewise."""
        self.storage.fetch(self.layout.best_file)
        return self.layout.best_file

    @property
    def ema_weights(self) -> Path:
        """The file of the averaged weights, which exists once a run with such a callback has finished."""
        self.storage.fetch(self.layout.ema_file)
        return self.layout.ema_file

    @property
    def weights_location(self) -> Path | str | None:
        """Where the final weights are kept; None if there are none. Nothing is downloaded."""
        file = self.layout.weights_file
        return self.storage.location_of(file) if self.storage.has(file) else None

    def refresh(self) -> None:
        """Updates what is known of a run on an object store; FileNotFoundError if there is no such run."""
        self.storage.refresh()

    def events(self) -> list[dict[str, Any]]:
        """All events of metrics.jsonl, in order."""
        return read_events(self.metrics_file)

    def newest_event(self, kind: str, max_lines: int | None = None) -> dict[str, Any] | None:
        """The last event of a kind; that of a run which has ended is in its record.

        Args:
            kind: Such as `eval`.
            max_lines: How many lines of metrics.jsonl to search, from its end; by default all.
        """
        record = self.record
        result = record.get("result") or {}
        if record["status"] != "running" and (result.get("train") or result.get("eval")):
            event: dict[str, Any] | None = result.get(kind)
            return event
        return newest_event(itertools.islice(self.storage.events_backwards(), max_lines), kind)

    def write_job(self, text: str) -> None:
        """Writes job.yaml."""
        atomic_write(self.layout.job_file, text)
        self.storage.publish(self.layout.job_file)

    def create_record(self, **values: Any) -> None:
        """Creates run.json; see `record.create_record`."""
        create_record(self.folder, **values)
        self.storage.publish(self.layout.record_file)

    def update_record(self, **changes: Any) -> None:
        """Changes fields of run.json; see `record.update_record`.

        Raises:
            OSError: It cannot be written.
            StorageError: It cannot be uploaded.
        """
        update_record(self.folder, **changes)
        self.storage.publish(self.layout.record_file)

    def _last_event_time(self) -> float | None:
        for line in self.storage.events_backwards():
            event = parse_event(line)
            if event is not None:
                return float(event["time"])
        return None

    def __repr__(self) -> str:
        return f"Run({str(self.location)!r})"


def measured_values(event: Mapping[str, Any]) -> dict[str, Any]:
    """The values of an eval event, by name: its loss and its metrics."""
    return {name: value for name, value in event.items() if name not in _NOT_VALUES}


def logged_values(event: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a train event that the job's code has logged, by name."""
    return {name: value for name, value in event.items() if name not in EVENT_FIELDS}


def newest_first(runs: Iterable[Run]) -> list[Run]:
    """Runs by their start; those whose record cannot be read come last."""
    return sorted(runs, key=lambda run: (_started(run), run.id), reverse=True)


def _started(run: Run) -> float:
    try:
        started = run.record.get("started")
    except JobError:
        return float("-inf")
    return 0.0 if started is None else float(started)
