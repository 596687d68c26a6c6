"""What is reported about a run while it trains; the terminal's progress display is one receiver."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from distrib.job.plan import Plan
    from distrib.runs.run import Run


class Observer(Protocol):
    """Receives what happens in a run, in the launcher's process and main thread.

    `started` comes first and `finished` last; the others come in any order between them. No method may block: training
    continues meanwhile, but the launcher reacts to nothing else.
    """

    def started(self, run: Run, plan: Plan) -> None:
        """The run's folder exists and its ranks are about to start."""

    def event(self, event: Mapping[str, Any]) -> None:
        """One event of metrics.jsonl, right after it was written."""

    def output(self, rank: int, host: str, line: str) -> None:
        """One line that a rank printed, without the line break; `host` is "" if its host is not known."""

    def notice(self, message: str) -> None:
        """A message of the launcher itself, for example that the run is stopping."""

    def waiting(self, reason: str) -> None:
        """What the run waits for, for example a host with free CPUs; may be repeated while it waits."""

    def idle(self) -> None:
        """Called several times a second while nothing else happens, to redraw what changes with time."""

    def finished(self, run: Run) -> None:
        """The run has ended, whatever its result; its record is complete."""


class SilentObserver:
    """Ignores everything: the default of the Python interface, and a base for observers that need few methods."""

    def started(self, run: Run, plan: Plan) -> None:
        """Ignored."""

    def event(self, event: Mapping[str, Any]) -> None:
        """Ignored."""

    def output(self, rank: int, host: str, line: str) -> None:
        """Ignored."""

    def notice(self, message: str) -> None:
        """Ignored."""

    def waiting(self, reason: str) -> None:
        """Ignored."""

    def idle(self) -> None:
        """Ignored."""

    def finished(self, run: Run) -> None:
        """Ignored."""
