"""What is said when a run is over: its result, or why there is none, and where to look."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from distrib.observe.format import duration, flow, num_bytes, plural, rate, short_path, value_pairs
from distrib.runs.record import Run
from distrib.runs.storage.location import join, split

DEFAULT_RUNS_FOLDER = "runs"
LABEL_WIDTH = 12


def summarize(run: Run, exit_code: int | None) -> dict[str, Any]:
    """The result of a run that is over, as `distrib run --json` prints it.

    Args:
        run: The run.
        exit_code: What the command that ran it exits with, where it is known.
    """
    return {
        "id": run.id,
        "folder": str(run.place),
        "status": run.status,
        "exit_code": exit_code,
        "metrics": run.metrics,
        "duration_seconds": run.duration_seconds,
        "first_step_seconds": run.record.get("first_step_seconds"),
        "samples_per_second": samples_per_second(run.events()),
        "error": run.error,
    }


def summary_lines(run: Run, width: int | None = None) -> list[str]:
    """A summary of a run, for people: the first line is the result, the last ones are what to do next.

    Args:
        run: The run.
        width: Columns of the terminal, within which metrics are wrapped; None to keep them on one line.
    """
    error = run.error
    head = [_failure(error)] if error else flow(f"{run.status}  ", value_pairs(run.metrics), width)
    if error and error.get("traceback"):
        head += ["", str(error["traceback"]).strip("\n"), ""]
    facts = {
        "steps": _steps(run) if run.status != "finished" else None,
        "duration": _duration(run),
        "first step": _first_step(run),
        "speed": None if error else _speed(run),
        "run": short_path(run.place),
        "log": _log(run, error) if error else None,
        "weights": _weights(run),
        "use it": _use(run) if run.status == "finished" and run.weights.exists() else None,
        "all runs": list_command(run.folder.parent if run.store is None else split(run.store.url)[0]),
    }
    return head + [f"  {label:<{LABEL_WIDTH}}{fact}" for label, fact in facts.items() if fact]


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
    """Mean speed of training itself: all samples over all time spent in steps, the first step apart where it can be."""
    train = [event for event in events if event["event"] == "train" and event.get("samples_per_second")]
    samples = seconds = 0.0
    for before, event in pairwise(train):
        if event["attempt"] == before["attempt"]:
            samples += event["samples"] - before["samples"]
            seconds += (event["samples"] - before["samples"]) / event["samples_per_second"]
    if seconds > 0:
        return samples / seconds
    return float(train[-1]["samples_per_second"]) if train else None


def _use(run: Run) -> str:
    """The commands that put a trained model to work."""
    root = short_path(run.folder.parent)
    name = run.id if root == DEFAULT_RUNS_FOLDER else short_path(run.folder)
    return f"distrib serve {name}; or predict, export, latency instead of serve"


def _failure(error: Mapping[str, Any]) -> str:
    """What failed where: `failed  rank 1 on node2: ValueError: no such label`."""
    rank = "" if error.get("rank") is None else f"rank {error['rank']}"
    host = "" if error.get("host") is None else f"on {error['host']}"
    culprit = " ".join(part for part in (rank, host) if part)
    cause = ": ".join(str(error[part]) for part in ("type", "message") if error.get(part))
    return "failed  " + ": ".join(part for part in (culprit, cause) if part)


def _steps(run: Run) -> str | None:
    done, planned = run.steps
    return None if planned is None else f"{done:,} of {planned:,} done"


def _weights(run: Run) -> str | None:
    file = run.layout.weights_file
    if not file.exists():
        return None
    return short_path(file if run.store is None else join(run.store.url, file.name))


def _duration(run: Run) -> str | None:
    seconds = run.duration_seconds
    return None if seconds is None else duration(seconds)


def _first_step(run: Run) -> str | None:
    seconds = run.record.get("first_step_seconds")
    return None if seconds is None else f"{duration(seconds)} after the command"


def _speed(run: Run) -> str | None:
    speed = samples_per_second(run.events())
    return None if speed is None else rate(speed)


def _log(run: Run, error: Mapping[str, Any]) -> str | None:
    if error.get("rank") is None:
        return None
    log = run.layout.rank_log(int(error["rank"]))
    return short_path(log) if log.exists() else None
