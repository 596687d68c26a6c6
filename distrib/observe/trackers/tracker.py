"""What a tracker is, and what it receives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from distrib.runs.events import is_number

_NOT_LOGGED = frozenset({"time", "attempt", "event", "step"})
_NAMES = {"train": "train", "eval": "eval"}


@dataclass(frozen=True)
class TrackedRun:
    """A run as a tracker sees it.

    Attributes:
        id: The run's id.
        key: A text that no other run has and that stays the same when the run is resumed.
        job: The job's name.
        folder: The run's files on this host.
        location: Where the run is kept: its folder or its URL.
        parameters: The fields of its job spec by dotted path.
    """

    id: str
    key: str
    job: str
    folder: Path
    location: str
    parameters: Mapping[str, Any]

    def weights(self) -> Path | None:
        """The best weights on this host, or else the final ones; None if there are none yet."""
        files = (self.folder / name for name in ("best.safetensors", "model.safetensors"))
        return next((file for file in files if file.exists()), None)


class Tracker(Protocol):
    """Receives a run, in a separate process.

    An exception is reported once, and the call is repeated until it succeeds or the run has ended. A tracker of the
    user is any object with some of these methods, made by calling the target with its args.
    """

    def start(self, run: TrackedRun) -> None:
        """Begins a run, or continues one that was begun before under the same `run.key`."""

    def log(self, event: Mapping[str, Any]) -> None:
        """Takes one event of metrics.jsonl."""

    def finish(self, status: str) -> None:
        """Ends the run with `finished`, `failed` or `stopped`; it may be continued later."""


def metrics_of(event: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a train or eval event by name, such as `train/loss` and `eval/accuracy`; of others none.

    Values in an object, as the learning rates of several optimizers are, are named `train/lr/NAME`.
    """
    prefix = _NAMES.get(str(event.get("event")))
    if prefix is None:
        return {}
    found: dict[str, float] = {}
    for name, value in event.items():
        if name in _NOT_LOGGED:
            continue
        if is_number(value):
            found[f"{prefix}/{name}"] = float(value)
        elif isinstance(value, dict):
            found |= {f"{prefix}/{name}/{key}": float(item) for key, item in value.items() if is_number(item)}
    return found
