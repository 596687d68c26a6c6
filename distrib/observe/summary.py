"""The summary of a run: its result or its error, what it is doing now, and the commands to use next."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from distrib.observe.format import duration, flow, num_bytes, number, plural, rate, short_path, value_pairs
from distrib.observe.history import EventReader, RunLength
from distrib.observe.rank_table import read_positions, with_positions
from distrib.observe.resume_command import resume_command
from distrib.observe.state import RunState
from distrib.runs.events import is_number
from distrib.runs.run import Run

DEFAULT_RUNS_FOLDER = "runs"
LABEL_WIDTH = 12
_FOUND_AFTER_STEP = ("NonFiniteLossError",)
"""Errors that are found between steps, whatever the rank did last."""


def summarize(run: Run, exit_code: int | None) -> dict[str, Any]:
    """The result of a run, or its present state, as `distrib run --json` and `distrib status --json` print it.

    Args:
        run: The run.
        exit_code: What the command that ran it exits with, where it is known.
    """
    state, speed, _ = read_state(run)
    return {
        "id": run.id,
        "folder": str(run.location),
        "status": run.status,
        "exit_code": exit_code,
        "step": state.step,
        "total_steps": None if state.length is None else state.length.total_steps,
        "activity": state.activity if run.status == "running" else None,
        "restarts": state.num_restarts,
        "metrics": run.metrics,
        "duration_seconds": run.duration_seconds,
        "first_step_seconds": run.record.get("first_step_seconds"),
        "samples_per_second": speed,
        "error": run.error,
        "ranks": with_positions(state.ranks.rows, _positions(run)),
    }


def _positions(run: Run) -> list[dict[str, Any]]:
    return read_positions(run.layout.positions_file) if run.status == "running" else []


def summary_lines(run: Run, width: int | None = None) -> list[str]:
    """A summary of a run, for people: the first line is the result, the last ones are what to do next.

    Args:
        run: The run.
        width: Columns of the terminal, within which metrics are wrapped; None to keep them on one line.
    """
    status, error = run.status, run.error
    state, speed, note = read_state(run)
    metrics = value_pairs(run.metrics)
    head = [failure_line(error)] if error else flow(f"{status}  ", metrics, width)
    if error and error.get("traceback"):
        head += ["", str(error["traceback"]).strip("\n"), ""]
    facts = {
        "now": _now(run, state) if status == "running" else None,
        "steps": None if status == "finished" else _steps(state, error),
        "duration": _duration(run),
        "first step": _first_step(run),
        "speed": None if error else _speed(speed),
        "run": short_path(run.location),
        "log": _log(run, error) if error else None,
        "last steps": _last_steps(error, state) if error else None,
        "advice": error.get("advice") if error else None,
        "then": error.get("others") if error else None,
        "weights": _weights(run),
        "continue": resume_command(run) if status in ("stopped", "failed") else None,
        "use it": _use(run) if status == "finished" and run.weights_location and run.record.get("schedule") else None,
        "note": note,
        "all runs": list_command(run.storage.runs_location),
    }
    return head + [f"  {label:<{LABEL_WIDTH}}{fact}" for label, fact in facts.items() if fact]


def rank_lines(run: Run) -> list[str]:
    """The ranks of a run side by side, indented as the summary is; empty for a single rank."""
    state, _, _ = read_state(run)
    return [f"  {line}" for line in state.ranks.lines()]


def read_state(run: Run) -> tuple[RunState, float | None, str | None]:
    """The state of a run after all of its events and by its record, its mean speed, and a note about damage."""
    record = run.record
    state = RunState(RunLength.of_record(record), float(record.get("started") or 0.0))
    meter = SpeedMeter()
    reader = EventReader(run)
    for event in reader:
        state.add(event)
        meter.add(event)
    activity = record.get("activity") if record["status"] == "running" else None
    if isinstance(activity, dict) and activity.get("message"):
        state.set_message(float(activity.get("since") or 0.0), str(activity["message"]))
    return state, meter.samples_per_second, reader.note


class SpeedMeter:
    """Mean speed of training: samples over the time spent in steps and data, without the first step if possible."""

    def __init__(self) -> None:
        self._last: Mapping[str, Any] | None = None
        self._samples = 0.0
        self._seconds = 0.0

    def add(self, event: Mapping[str, Any]) -> None:
        """Takes an event into account."""
        if event["event"] != "train" or not is_number(event.get("samples_per_second")):
            return
        if event["samples_per_second"] <= 0:
            return
        if self._last is not None and self._last["attempt"] == event["attempt"]:
            samples = event["samples"] - self._last["samples"]
            self._samples += samples
            self._seconds += samples / event["samples_per_second"]
        self._last = event

    @property
    def samples_per_second(self) -> float | None:
        """The speed; None without train events."""
        if self._seconds > 0:
            return self._samples / self._seconds
        return None if self._last is None else float(self._last["samples_per_second"])


def prediction_line(told: Mapping[str, Any]) -> str:
    """What a prediction came to: `360 rows in 0.2 s on 2 workers, 1,800 samples/s: out.npy`."""
    speed = told["samples_per_second"]
    how_fast = "" if speed is None else f", {rate(speed)}"
    workers = plural(told["workers"], "worker")
    return f"{plural(told['rows'], 'row')} in {duration(told['seconds'])} on {workers}{how_fast}: {told['out']}"


def export_line(told: Mapping[str, Any]) -> str:
    """What an export came to, and how far its outputs were from the model's."""
    batches = ", ".join(map(str, told["checked_batches"]))
    difference = told["largest_difference"]
    same = "the same outputs as the model" if difference == 0 else f"outputs within {difference:.1e} of the model's"
    return f"{told['out']}: {num_bytes(told['bytes'])}, {told['weights']}; gives {same} for batches of {batches}"


def list_command(runs_folder: Path | str) -> str:
    """The command that shows the runs of a folder."""
    shown = short_path(runs_folder)
    return "distrib list" if shown == DEFAULT_RUNS_FOLDER else f"distrib list --runs-dir {shown}"


def samples_per_second(events: Iterable[Mapping[str, Any]]) -> float | None:
    """The mean speed of training by a run's events; see `SpeedMeter`."""
    meter = SpeedMeter()
    for event in events:
        meter.add(event)
    return meter.samples_per_second


def _use(run: Run) -> str:
    """The commands that put a trained model to work."""
    root = short_path(run.storage.runs_location)
    name = run.id if root == DEFAULT_RUNS_FOLDER else short_path(run.location)
    return f"distrib serve {name}\n{'':{2 + LABEL_WIDTH}}or predict, export, latency in place of serve"


def failure_line(error: Mapping[str, Any]) -> str:
    """What failed, and where: `failed  rank 1 on node2: ValueError: no such label`."""
    rank = "" if error.get("rank") is None else f"rank {error['rank']}"
    host = "" if error.get("host") is None else f"on {error['host']}"
    culprit = " ".join(part for part in (rank, host) if part)
    cause = ": ".join(str(error[part]) for part in ("type", "message") if error.get(part))
    return "failed  " + ": ".join(part for part in (culprit, cause) if part)


def _now(run: Run, state: RunState) -> str:
    """What a running run is doing, and how long ago it last wrote anything."""
    parts = [state.activity]
    left = state.seconds_left(time.time())
    if left is not None and state.activity == "training":
        parts.append(f"{duration(left)} left")
    if state.last is not None:
        parts.append(f"last event {duration(max(0.0, time.time() - state.last['time']))} ago")
    if state.num_restarts:
        parts.append(plural(state.num_restarts, "restart"))
    return ", ".join(parts)


def _steps(state: RunState, error: Mapping[str, Any] | None) -> str | None:
    """The completed steps, if the run counts any; a rank that failed may have completed more than events report."""
    if not state.has_steps:
        return None
    reported = (error or {}).get("completed_steps")
    step = max(state.step, reported) if is_number(reported) else state.step
    return f"{step:,} done" if state.length is None else f"{step:,} of {state.length.total_steps:,} done"


def _last_steps(error: Mapping[str, Any], state: RunState) -> str | None:
    """Where the rank that failed stood, and the last losses: `12 completed, failed in forward; loss 0.3 at step 10`."""
    steps, phase = error.get("completed_steps"), error.get("phase")
    where = None
    if phase == "start":
        where = "none, failed before the first step"
    elif phase == "evaluation" and steps == 0:
        where = "none, failed before the first step, in the trial with a batch of data.eval"
    elif phase is not None and is_number(steps):
        failed = "" if error.get("type") in _FOUND_AFTER_STEP else f", failed in {phase}"
        where = f"{steps:,} completed{failed}" if steps else f"failed in {phase} of the first step"
    losses = ", ".join(f"{number(event.get('loss'))} at step {event['step']:,}" for event in state.recent_train)
    return "; ".join(part for part in (where, f"loss {losses}" if losses else None) if part) or None


def _weights(run: Run) -> str | None:
    location = run.weights_location
    return None if location is None else short_path(location)


def _duration(run: Run) -> str | None:
    seconds = run.duration_seconds
    return None if seconds is None else duration(seconds)


def _first_step(run: Run) -> str | None:
    seconds = run.record.get("first_step_seconds")
    return None if seconds is None else f"{duration(seconds)} after the command"


def _speed(speed: float | None) -> str | None:
    return None if speed is None else rate(speed)


def _log(run: Run, error: Mapping[str, Any]) -> str | None:
    if error.get("rank") is None:
        return None
    log = run.layout.rank_log(int(error["rank"]))
    return short_path(log) if log.exists() else None
