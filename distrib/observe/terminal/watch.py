"""Following a run that another process, or another host, trains."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TextIO

from distrib.observe.format import plural
from distrib.observe.history import EventReader, RunLength
from distrib.observe.state import RunState
from distrib.observe.terminal.lines import has_line
from distrib.observe.terminal.progress import Progress, make_progress
from distrib.runs.events import EventTail
from distrib.runs.storage.errors import StorageError
from distrib.runs.storage.folder.preparing import is_being_prepared

if TYPE_CHECKING:
    from distrib.runs.run import Run

_POLL_SECONDS = 0.25
_NUM_RECENT = 6
_RESUME_SECONDS = 20.0
"""How long a run whose launcher died while it was watched may take to be resumed by whoever supervises it."""


class RunWatcher:
    """Shows a run until it has ended, from its folder or its objects alone.

    Args:
        run: The run.
        stream: Where to show it.
    """

    def __init__(self, run: Run, stream: TextIO) -> None:
        self._run = run
        self._stream = stream
        self._tail = EventTail(run.metrics_file)
        self._waited_for: str | None = None
        self._state = RunState(None, time.time())
        self._problem = ""

    def watch(self) -> None:
        """Returns when the run has ended."""
        events = self._tail.poll()
        record = self._run.record
        state = RunState(RunLength.of_record(record), float(record.get("started") or time.time()))
        self._state = state
        for event in events:
            state.add(event)
        with make_progress(self._stream.isatty(), self._stream) as progress:
            progress.attach(self._title(record, state), state)
            for event in [event for event in events if event["event"] != "train" and has_line(event)][-_NUM_RECENT:]:
                progress.show(event)
            reader = EventReader(self._run)
            for _ in reader:
                pass  # only to count damaged lines
            if reader.note is not None:
                progress.notice(reader.note)
            for _ in self._polls(progress):
                self._show_news(progress)
            progress.finished(self._run)

    def _title(self, record: dict[str, Any], state: RunState) -> str:
        request = record.get("request") or {}
        schedule = record.get("schedule") or {}
        num_workers = state.world_size or schedule.get("world_size")
        parts = [] if num_workers is None else [f"{plural(num_workers, 'worker')} on {request.get('device', '?')}"]
        if state.length is not None:
            parts.append(plural(state.length.total_steps, "step"))
        return f"{self._run.id}: " + ", ".join([*parts, "continuing" if self._is_prepared() else str(self._run.status)])

    def _is_prepared(self) -> bool:
        """Whether the run is not recorded as running yet, but a launcher is about to continue it."""
        return self._run.status != "running" and is_being_prepared(self._run.folder)

    def _polls(self, progress: Progress) -> Iterator[None]:
        """Yields at every look at the run, the last time after it has ended."""
        next_look, died = 0.0, 0.0
        seen_running = False
        while True:
            now = time.monotonic()
            if now >= next_look:
                next_look = now + self._run.storage.poll_seconds
                self._refresh(progress)
                is_running = self._run.status == "running"
                if is_running and not seen_running:
                    seen_running = True
                    self._state.length = RunLength.of_record(self._run.record)  # an extension changes it
                is_dead = not is_running and self._run.record["status"] == "running"
                yield
                if is_dead and seen_running:
                    died = died or now
                    progress.waiting("the launcher has died; waiting for the run to be resumed")
                is_prepared = not seen_running and self._is_prepared()
                if is_prepared:
                    progress.waiting("a launcher is about to continue the run")
                is_awaited = is_dead and seen_running and now - died < _RESUME_SECONDS
                if not (is_running or is_prepared or is_awaited):
                    return
                died = 0.0 if is_running else died
            progress.idle()
            time.sleep(_POLL_SECONDS)

    def _refresh(self, progress: Progress) -> None:
        """Reads a run on an object store again; while the store cannot be reached, the display stays as it is."""
        try:
            self._run.refresh()
            self._run.storage.fetch_events()
            self._problem = ""
        except (StorageError, OSError) as error:
            if str(error) != self._problem:
                self._problem = str(error)
                progress.notice(f"the run cannot be read now: {error}")

    def _show_news(self, progress: Progress) -> None:
        for event in self._tail.poll():
            progress.event(event)
        record = self._run.record
        activity = record.get("activity") if record["status"] == "running" else None
        reason = activity.get("message") if isinstance(activity, dict) else None
        if reason is not None and reason != self._waited_for:
            progress.waiting(str(reason))
        self._waited_for = reason
