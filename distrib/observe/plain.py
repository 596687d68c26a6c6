"""Progress as plain lines, for logs and pipes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, TextIO

from distrib.observe.lines import event_line, has_line, headline

if TYPE_CHECKING:
    from distrib.job.plan import Plan, StepPlan
    from distrib.runs.record import Run


class PlainProgress:
    """Prints a run line by line; a reader that goes away does not stop the training.

    Args:
        stream: Where lines go.
        interval_seconds: Least time between two lines about training, by the time of its events.
    """

    def __init__(self, stream: TextIO, interval_seconds: float = 2.0) -> None:
        self.finished_run: Run | None = None
        self._stream = stream
        self._is_open = True
        self._interval_seconds = interval_seconds
        self._next_time = 0.0
        self._schedule: StepPlan | None = None

    def started(self, run: Run, plan: Plan) -> None:
        """Says what starts."""
        self._schedule = plan.schedule
        self._print(headline(run, plan))

    def event(self, event: Mapping[str, Any]) -> None:
        """Prints an event; of those about training the first, the last and some between."""
        if event["event"] == "train":
            if event["time"] < self._next_time and not self._is_last(event):
                return
            self._next_time = event["time"] + self._interval_seconds
        if has_line(event):
            self._print(event_line(event, self._schedule))

    def output(self, rank: int, line: str) -> None:
        """Prints what a rank printed."""
        self._print(f"[rank {rank}] {line}")

    def notice(self, message: str) -> None:
        """Prints what the launcher says."""
        self._print(message)

    def idle(self) -> None:
        """Nothing moves."""

    def finished(self, run: Run) -> None:
        """Remembers the run."""
        self.finished_run = run

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        return None

    def _is_last(self, event: Mapping[str, Any]) -> bool:
        return self._schedule is not None and event["step"] == self._schedule.total_steps

    def _print(self, line: str) -> None:
        if not self._is_open:
            return
        try:
            print(line, file=self._stream, flush=True)
        except OSError:
            self._is_open = False
