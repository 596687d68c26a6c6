"""Progress as plain lines, for logs and pipes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Self, TextIO

from distrib.observe.rank_logs import rank_on_host
from distrib.observe.state import RunState, starting_state
from distrib.observe.terminal.lines import event_line, has_line, headline
from distrib.observe.terminal.stream import PatientStream

if TYPE_CHECKING:
    from distrib.job.plan import Plan
    from distrib.runs.run import Run


class PlainProgress:
    """Prints a run line by line.

    Args:
        stream: Where lines go.
        interval_seconds: Least time between two lines about training, by the time of its events.
        now: Returns Unix seconds, the clock of the events.
    """

    def __init__(self, stream: TextIO, interval_seconds: float = 2.0, now: Callable[[], float] = time.time) -> None:
        self.finished_run: Run | None = None
        self._stream = PatientStream(stream)
        self._interval_seconds = interval_seconds
        self._next_time = 0.0
        self._now = now
        self._state = RunState(None, now())

    def started(self, run: Run, plan: Plan) -> None:
        """Prints the headline."""
        self.attach(headline(run, plan), starting_state(run, plan, self._now()))

    def attach(self, title: str, state: RunState) -> None:
        """Prints a title, for a run in the given state."""
        self._state = state
        self._print(title)

    def event(self, event: Mapping[str, Any]) -> None:
        """Prints an event; of those about training the first, the last and some between."""
        self._state.add(event)
        self.show(event)

    def show(self, event: Mapping[str, Any]) -> None:
        """Prints an event, unless it follows another one about training too soon."""
        if event["event"] == "train":
            if event["time"] < self._next_time and not self._is_last(event):
                return
            self._next_time = event["time"] + self._interval_seconds
        if has_line(event):
            self._print(event_line(event, self._state.length))

    def output(self, rank: int, host: str, line: str) -> None:
        """Prints what a rank printed."""
        self._print(f"[{rank_on_host(rank, host)}] {line}")

    def notice(self, message: str) -> None:
        """Prints a message of the launcher."""
        self._print(message)

    def waiting(self, reason: str) -> None:
        """Prints what the run waits for, unless it was printed last."""
        if self._state.set_message(self._now(), reason):
            self._print(reason)

    def idle(self) -> None:
        """Writes what a paused reader has not accepted before."""
        self._stream.flush()

    def finished(self, run: Run) -> None:
        """Keeps the run for the caller."""
        self.finished_run = run
        self._stream.drain()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stream.drain()

    def _is_last(self, event: Mapping[str, Any]) -> bool:
        length = self._state.length
        return length is not None and event["step"] == length.total_steps

    def _print(self, line: str) -> None:
        self._stream.write(line + "\n")
        self._stream.flush()
