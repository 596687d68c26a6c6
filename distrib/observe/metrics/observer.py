"""Keeps the metrics of a run up to date while it trains, wherever they are read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from distrib.observe.metrics.definitions import RESTARTS, RUNNING, TOTAL_STEPS, WORKERS, Sample, samples_of
from distrib.observe.observer import SilentObserver
from distrib.runs.events import read_events

if TYPE_CHECKING:
    from distrib.job.plan import Plan
    from distrib.runs.run import Run


class MetricSink(Protocol):
    """Where the values of metrics go."""

    def set(self, samples: Iterable[Sample], run: Mapping[str, str]) -> None:
        """Sets metrics of a run, given by its labels, to values that belong together."""


class MetricsObserver(SilentObserver):
    """Sets the metrics of a run from its events.

    Args:
        sink: Where the values go.
    """

    def __init__(self, sink: MetricSink) -> None:
        self._sink = sink
        self._run: dict[str, str] = {}
        self._restarts = 0

    def started(self, run: Run, plan: Plan) -> None:
        """Sets what is known from the start; restarts of earlier launches count."""
        self._run = {"run": run.id, "job": str(run.record.get("name"))}
        self._restarts = sum(event.get("event") == "restart" for event in read_events(run.layout.metrics_file))
        schedule = plan.schedule
        self._set(
            Sample(RUNNING, 1),
            Sample(WORKERS, schedule.world_size),
            Sample(TOTAL_STEPS, schedule.total_steps),
            Sample(RESTARTS, self._restarts),
        )

    def event(self, event: Mapping[str, Any]) -> None:
        """Sets what the event changes."""
        self._set(*samples_of(event))
        if event.get("event") == "restart":
            self._restarts += 1
            self._set(Sample(RESTARTS, self._restarts))

    def finished(self, run: Run) -> None:
        """Marks the run as ended."""
        if self._run:
            self._set(Sample(RUNNING, 0))

    def _set(self, *samples: Sample) -> None:
        self._sink.set(samples, self._run)
