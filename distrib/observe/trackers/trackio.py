"""trackio: a local database, or a Hugging Face Space."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distrib.observe.trackers.tracker import TrackedRun, metrics_of


class TrackioTracker:
    """Logs metrics with their steps, and the job's fields as the config.

    Args:
        project: The project; by default the job's name.
        space: The Hugging Face Space to log to; by default the local database.
    """

    def __init__(self, project: str | None = None, space: str | None = None) -> None:
        self._project = project
        self._space = space
        self._run: Any = None

    def start(self, run: TrackedRun) -> None:
        """Begins the run, or continues the one of this name."""
        import trackio

        self._run = trackio.init(
            project=self._project or run.job,
            name=run.id,
            space_id=self._space,
            config={**run.parameters, "distrib key": run.key},
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )

    def log(self, event: Mapping[str, Any]) -> None:
        """Logs the values of an event at its step."""
        metrics = metrics_of(event)
        if metrics:
            self._run.log(metrics, step=event["step"])

    def finish(self, status: str) -> None:
        """Waits until everything is stored."""
        self._run.finish()
