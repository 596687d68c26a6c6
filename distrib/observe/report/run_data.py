"""What a report shows of one run, collected from its events in a single pass and in little memory."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from distrib.observe.history import EventReader, RunLength
from distrib.observe.page.svg import Floats
from distrib.runs.events import is_number
from distrib.runs.run import measured_values

if TYPE_CHECKING:
    from distrib.runs.run import Run

_TRAIN_FIELDS = ("loss", "step_seconds", "data_seconds", "samples_per_second")
MARK_KINDS = ("restart", "resize", "warning", "checkpoint")


@dataclass(frozen=True)
class Mark:
    """Something that happened at a step: a restart, a resize, a warning or a checkpoint."""

    kind: str
    step: int
    time: float
    attempt: int
    message: str


class Columns:
    """Values of events of one kind, column by column; NaN where an event lacks a value."""

    def __init__(self) -> None:
        self._columns: dict[str, array[float]] = {}
        self._length = 0

    def add(self, values: Mapping[str, Any]) -> None:
        """Appends a row; values that are not numbers count as missing."""
        for name, value in values.items():
            if not is_number(value):
                continue
            column = self._columns.setdefault(name, array("d"))
            if len(column) < self._length:
                column.extend([float("nan")] * (self._length - len(column)))
            column.append(float(value))
        self._length += 1

    @property
    def names(self) -> list[str]:
        """The columns that have any value."""
        return list(self._columns)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, name: str) -> Floats:
        column = self._columns.get(name, array("d"))
        missing = self._length - len(column)
        return np.concatenate([np.frombuffer(column), np.full(missing, np.nan)]) if missing else np.array(column)


@dataclass
class RunData:
    """One run, ready for a report.

    Attributes:
        run: The run.
        record: Its run.json.
        train: Columns `step`, `time`, `attempt`, `loss`, `lr`, … of its train events.
        evaluation: The same of its evaluations, with one column for each metric.
        marks: Restarts, resizes, warnings and checkpoints.
        overhead: Seconds spent in evaluations (`evaluation`) and in steps held up by checkpoints (`checkpoints`).
        first_steps: For each attempt, the step after which it began.
        ranks: For each rank, what the newest attempt reported about it.
        note: What to know about damaged events.
        pauses: When a later launch continued the run, in Unix seconds, and how long nothing had been trained before.
    """

    run: Run
    record: dict[str, Any]
    train: Columns = field(default_factory=Columns)
    evaluation: Columns = field(default_factory=Columns)
    marks: list[Mark] = field(default_factory=list)
    overhead: dict[str, float] = field(default_factory=lambda: {"evaluation": 0.0, "checkpoints": 0.0})
    first_steps: dict[int, int] = field(default_factory=dict)
    ranks: list[dict[str, Any]] = field(default_factory=list)
    last: dict[str, Any] | None = None
    note: str | None = None
    pauses: list[tuple[float, float]] = field(default_factory=list)

    @property
    def started(self) -> float:
        """Unix seconds from which times count: the record's, or the first event's."""
        started = self.record.get("started")
        if started is not None:
            return float(started)
        return float(self.train["time"][0]) if len(self.train) else 0.0

    @property
    def length(self) -> RunLength | None:
        """The planned length."""
        return RunLength.of_record(self.record)

    def elapsed(self, times: Any) -> Any:
        """Seconds since the start, without the pauses between launches, for a time or an array of times."""
        paused = sum(np.where(np.asarray(times) >= end, seconds, 0.0) for end, seconds in self.pauses)
        return times - self.started - paused

    def marks_of(self, *kinds: str) -> list[Mark]:
        """The marks of these kinds."""
        return [mark for mark in self.marks if mark.kind in kinds]

    def is_superseded(self, columns: Columns) -> Any:
        """For each row, whether a later attempt trained its step again."""
        steps, attempts = columns["step"], columns["attempt"]
        found = np.zeros(len(columns), dtype=bool)
        for attempt, first in self.first_steps.items():
            found |= (attempts < attempt) & (steps > first)
        return found


def collect(run: Run) -> RunData:
    """Reads what a report shows of a run."""
    data = RunData(run, run.record)
    reader = EventReader(run)
    for event in reader:
        _add(data, event)
    data.note = reader.note
    return data


def _add(data: RunData, event: dict[str, Any]) -> None:
    kind = event["event"]
    position = {name: event[name] for name in ("step", "time", "attempt", "samples")}
    before, data.last = data.last, event
    if kind == "train":
        values = {name: event.get(name) for name in _TRAIN_FIELDS}
        logged = {name: value for name, value in measured_values(event).items() if name not in (*_TRAIN_FIELDS, "lr")}
        data.train.add({**logged, **values, **_learning_rates(event.get("lr")), **position})
    elif kind == "eval":
        data.evaluation.add({**measured_values(event), **position})
        data.overhead["evaluation"] += _seconds(event.get("eval_seconds"))
    elif kind == "start":
        data.first_steps[event["attempt"]] = event["step"]
        if before is not None and before["event"] not in ("restart", "resize"):  # written while a launcher runs
            data.pauses.append((float(event["time"]), max(0.0, float(event["time"]) - float(before["time"]))))
        if isinstance(event.get("ranks"), list):
            data.ranks = [rank for rank in event["ranks"] if isinstance(rank, dict)]
    elif kind == "checkpoint":
        data.overhead["checkpoints"] += _seconds(event.get("stall_seconds")) + _seconds(event.get("wait_seconds"))
    if kind in MARK_KINDS:
        message = str(event.get("message") or "")
        if kind == "checkpoint" and is_number(event.get("save_seconds")):
            message = f"saved in {event['save_seconds']:.2g} s"
        data.marks.append(Mark(kind, event["step"], float(event["time"]), event["attempt"], message))


def _learning_rates(value: Any) -> dict[str, Any]:
    """The learning rate as a column, or one column for each optimizer."""
    if isinstance(value, dict):
        return {f"lr {name}": rate for name, rate in value.items()}
    return {"lr": value}


def _seconds(value: Any) -> float:
    return float(value) if is_number(value) else 0.0
