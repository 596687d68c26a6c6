"""What a launcher tells whoever watches a run; the terminal's progress display is one observer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from distrib.job.plan import Plan
    from distrib.runs.record import Run


class Observer(Protocol):
    """Receives the life of a run, in the launcher's process and thread, in this order."""

    def started(self, run: Run, plan: Plan) -> None:
        """The run's folder exists and its ranks are about to start."""

    def event(self, event: Mapping[str, Any]) -> None:
        """One event of metrics.jsonl, as soon as it is written."""

    def output(self, rank: int, line: str) -> None:
        """One line that a rank printed, without its end of line."""

    def notice(self, message: str) -> None:
        """Something that the launcher itself has to say, such as that the run is stopping."""

    def idle(self) -> None:
        """Called several times a second while nothing else happens, to redraw what moves."""

    def finished(self, run: Run) -> None:
        """The run is over, whatever its result; its record is complete."""


class SilentObserver:
    """Watches nothing: the default of the Python interface."""

    def started(self, run: Run, plan: Plan) -> None:
        """Ignored."""

    def event(self, event: Mapping[str, Any]) -> None:
        """Ignored."""

    def output(self, rank: int, line: str) -> None:
        """Ignored."""

    def notice(self, message: str) -> None:
        """Ignored."""

    def idle(self) -> None:
        """Ignored."""

    def finished(self, run: Run) -> None:
        """Ignored."""
