"""What a launcher's process does while the ranks train: pass on what they write, and tell who asks of signals."""

from __future__ import annotations

from typing import Any

from distrib.launch.signals import StopSignals
from distrib.launch.store_sync import NoSync, StoreSync
from distrib.observe.observer import Observer
from distrib.runs.events import EventTail, LineTail
from distrib.runs.lease import Lease
from distrib.runs.newest import newest_event
from distrib.runs.record import Run, update_record
from distrib.runs.storage.errors import storage_problem


class RunMonitor:
    """Follows a run's events and rank 0's output for an observer; signals become a wish to stop.

    The first signal asks the run to stop, the second to end at once.

    Args:
        run: The run.
        observer: Told of everything.
        started: Unix seconds from which the first step is timed.
        lease: The hold on the run.
        signals: Those that have come.
    """

    def __init__(self, run: Run, observer: Observer, started: float, lease: Lease, signals: StopSignals) -> None:
        self._run = run
        self._observer = observer
        self._events = EventTail(run.layout.metrics_file)
        self._lines = LineTail(run.layout.rank_log(0))
        self._signals = signals
        self._was_announced = False
        self._last_events: dict[str, dict[str, Any]] = {}
        self._started = started
        self._events.poll()  # what earlier attempts wrote is no news
        self._lines.poll()
        self._keeper = NoSync(lease) if run.store is None else StoreSync(run.store, lease)

    def follow_store(self, attempt: int) -> None:
        """Follows, where the run is kept on an object store, what a rank 0 on another host publishes there."""
        self._keeper.follow(attempt)

    def settle(self) -> None:
        """Waits until nothing goes on in the background of this process, which can be forked then."""
        self._keeper.settle()

    def stop_requested(self) -> bool:
        """Whether a signal has asked the run to stop."""
        if self._signals.count and not self._was_announced:
            self._was_announced = True
            self._observer.waiting("stopping at the next agreed step; press Ctrl-C again to stop immediately")
        return self._signals.count > 0

    def kill_requested(self) -> bool:
        """Whether a second signal has asked the run to end at once."""
        return self._signals.count > 1

    def notice(self, message: str) -> None:
        """Passes on what the launcher has to say."""
        self._observer.notice(message)

    def waiting(self, reason: str) -> None:
        """Reports what the run waits for."""
        self._observer.waiting(reason)

    def poll(self) -> None:
        """Passes on what is new, and renews the hold on the run."""
        self._keeper.keep_up()
        events = self._events.poll()
        for event in events:
            self._take(event)
        for line in self._lines.poll():
            self._observer.output(0, line)
        if not events:
            self._observer.idle()

    def drain(self) -> None:
        """Passes on the last of it, once no rank writes any more."""
        self._keeper.finish()
        self.poll()
        rest = self._lines.rest()
        if rest:
            self._observer.output(0, rest)

    def skip_output(self) -> None:
        """Leaves out what rank 0's log holds that has not been passed on."""
        self._lines.poll()

    def last(self, kind: str) -> dict[str, Any] | None:
        """The last event of this kind that was written, or None."""
        return self._last_events.get(kind)

    @property
    def result(self) -> dict[str, Any]:
        """The newest values of training and evaluation, of earlier launches where this one had nothing left to do."""
        newest = {
            kind: self._last_events.get(kind) or newest_event(self._run.layout.metrics_file, kind)
            for kind in ("train", "eval")
        }
        return {kind: event for kind, event in newest.items() if event is not None}

    def _take(self, event: dict[str, Any]) -> None:
        kind = str(event.get("event"))
        if kind == "start":
            self._record(input_signature=event.get("input_signature"))
        elif kind == "train" and kind not in self._last_events:
            self._record(first_step_seconds=round(event["time"] - self._started, 3))
        self._last_events[kind] = event
        self._observer.event(event)

    def _record(self, **changes: Any) -> None:
        """Notes something in run.json; that it cannot be written now is no reason to end the training."""
        try:
            update_record(self._run.folder, **changes)
        except OSError as error:
            self._observer.notice(storage_problem(error, str(self._run.layout.record_file)) or str(error))
        self._keeper.note_change()
