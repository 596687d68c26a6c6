"""What a run waits for, kept in its record so that other processes and hosts can see it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from distrib.observe.observer import SilentObserver
from distrib.runs.storage.errors import StorageError

if TYPE_CHECKING:
    from distrib.job.plan import Plan
    from distrib.runs.run import Run


STALLED = "no step has ended"
"""How the reason begins if ranks do not advance; the next event shows that they do again."""


class ActivityRecorder(SilentObserver):
    """Writes what the run waits for into run.json, and removes it once training continues."""

    def __init__(self) -> None:
        self._run: Run | None = None
        self._recorded: str | None = None

    def started(self, run: Run, plan: Plan) -> None:
        """Removes what the previous launch of the run was waiting for when it ended."""
        self._run = run
        self._recorded = (run.record.get("activity") or {}).get("message")
        self._record(None)

    def waiting(self, reason: str) -> None:
        """Records a reason that is new."""
        self._record(reason)

    def event(self, event: Mapping[str, Any]) -> None:
        """Removes the reason when training starts, or continues after a stall."""
        if event["event"] == "start" or (self._recorded or "").startswith(STALLED):
            self._record(None)

    def _record(self, reason: str | None) -> None:
        if self._run is None or reason == self._recorded:
            return
        activity = None if reason is None else {"message": reason, "since": time.time()}
        with suppress(OSError, StorageError):  # the next call tries again
            self._run.update_record(activity=activity)
            self._recorded = reason
