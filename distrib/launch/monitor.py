"""What the launcher's process does while the ranks train: passes on what they write and reports received signals."""

from __future__ import annotations

import time
from typing import Any

from distrib.launch.process.signals import StopSignals
from distrib.observe.observer import Observer
from distrib.observe.rank_logs import LogLine, RankLog
from distrib.runs.events import EventTail
from distrib.runs.lease import Lease
from distrib.runs.record import update_record
from distrib.runs.run import Run
from distrib.runs.storage.errors import storage_problem


class RunMonitor:
    """Passes a run's events and rank 0's output on to an observer; turns signals into requests to stop.

    The first signal requests a stop, the second an immediate end.

    Args:
        run: The run.
        observer: Receives everything.
        started: Unix seconds from which the first step is timed.
        lease: The hold on the run.
        signals: Those that have been received.
        is_script: Whether ranks run a script, which agrees on steps only once its session has started.
    """

    def __init__(
        self,
        run: Run,
        observer: Observer,
        started: float,
        lease: Lease,
        signals: StopSignals,
        *,
        is_script: bool = False,
    ) -> None:
        self._run = run
        self.observer = observer
        self._events = EventTail(run.layout.metrics_file)
        self._log = RankLog(run.layout, 0)
        self._signals = signals
        self._is_script = is_script
        self._is_stop_announced = False
        self.num_events = 0
        self.newest_event_time = time.time()
        self._last_events: dict[str, dict[str, Any]] = {}
        self.started = started
        self._events.poll()  # skips what earlier attempts wrote
        self._log.poll()
        self._sync = run.storage.sync(lease)

    def follow_store(self, attempt: int) -> None:
        """Follows what a rank 0 on another host publishes, if the run is kept on an object store."""
        self._sync.follow(attempt)

    def settle(self) -> None:
        """Waits until this process has no background work left, after which it can be forked."""
        self._sync.join()

    def stop_requested(self) -> bool:
        """Whether a signal has requested the run to stop."""
        if self._signals.count and not self._is_stop_announced:
            self._is_stop_announced = True
            has_steps = not self._is_script or "start" in self._last_events
            how = "stopping at the next agreed step" if has_steps else "stopping: SIGTERM is sent to the script's ranks"
            self.waiting(f"{how}; press Ctrl-C again to stop immediately")
        return self._signals.count > 0

    def kill_requested(self) -> bool:
        """Whether a second signal has requested the run to end immediately."""
        return self._signals.count > 1

    def notice(self, message: str) -> None:
        """Passes on a message of the launcher itself."""
        self.observer.notice(message)

    def waiting(self, reason: str) -> None:
        """Reports what the run waits for."""
        self.observer.waiting(reason)

    def poll(self) -> None:
        """Passes on what is new, and renews the hold on the run."""
        self._sync.poll()
        events = self._events.poll()
        for event in events:
            self._receive(event)
        self._show(self._log.poll())
        if not events:
            self.observer.idle()

    def drain(self) -> None:
        """Passes on the rest once all ranks have stopped writing."""
        self._sync.finish()
        self.poll()
        self._show(self._log.poll(is_last=True))

    def _show(self, lines: list[LogLine]) -> None:
        for line in lines:
            self.observer.output(line.rank, line.host, line.text)

    def skip_output(self) -> None:
        """Skips the part of rank 0's log that has not been passed on."""
        self._log.poll()

    def last(self, kind: str) -> dict[str, Any] | None:
        """The last event of this kind that was written, or None."""
        return self._last_events.get(kind)

    @property
    def result(self) -> dict[str, Any]:
        """The newest values of training and evaluation, from earlier launches if this one had nothing left to do."""
        newest = {kind: self._last_events.get(kind) or self._run.newest_event(kind) for kind in ("train", "eval")}
        return {kind: event for kind, event in newest.items() if event is not None}

    def _receive(self, event: dict[str, Any]) -> None:
        kind = str(event.get("event"))
        self.num_events += 1
        self.newest_event_time = time.time()
        if kind == "start":
            self._record(input_signature=event.get("input_signature"))
        elif kind == "train" and kind not in self._last_events:
            self._record(first_step_seconds=round(event["time"] - self.started, 3))
        self._last_events[kind] = event
        self.observer.event(event)

    def _record(self, **changes: Any) -> None:
        """Changes run.json; failing to write it now is no reason to end the training."""
        try:
            update_record(self._run.folder, **changes)
        except OSError as error:
            self.notice(storage_problem(error, str(self._run.layout.record_file)) or str(error))
        self._sync.record_changed()
