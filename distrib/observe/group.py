"""Several observers of one run; an observer that fails does not end the run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from distrib.observe.observer import Observer

if TYPE_CHECKING:
    from distrib.job.plan import Plan
    from distrib.runs.run import Run


class ObserverGroup:
    """Passes everything on to several observers, in order.

    An exception in one of them is reported once, as a notice to the others or on stderr if no other is left. From then
    on that observer only gets `finished`, so that it can release what it holds.

    Args:
        observers: The observers.
    """

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = list(observers)
        self._failed: list[Observer] = []

    def add(self, observer: Observer) -> None:
        """Adds an observer, before the run starts."""
        self._observers.append(observer)

    def started(self, run: Run, plan: Plan) -> None:
        """Passes it on."""
        self._call_each(lambda observer: observer.started(run, plan))

    def event(self, event: Mapping[str, Any]) -> None:
        """Passes it on."""
        self._call_each(lambda observer: observer.event(event))

    def output(self, rank: int, host: str, line: str) -> None:
        """Passes it on."""
        self._call_each(lambda observer: observer.output(rank, host, line))

    def notice(self, message: str) -> None:
        """Passes it on."""
        self._call_each(lambda observer: observer.notice(message))

    def waiting(self, reason: str) -> None:
        """Passes it on."""
        self._call_each(lambda observer: observer.waiting(reason))

    def idle(self) -> None:
        """Passes it on."""
        self._call_each(lambda observer: observer.idle())

    def finished(self, run: Run) -> None:
        """Passes it on, also to observers that have failed before."""
        for observer in self._failed:
            with suppress(Exception):
                observer.finished(run)
        self._call_each(lambda observer: observer.finished(run))

    def _call_each(self, call: Callable[[Observer], None]) -> None:
        errors: list[tuple[Observer, Exception]] = []
        for observer in self._observers:
            try:
                call(observer)
            except Exception as error:
                errors.append((observer, error))
        for observer, _ in errors:
            self._observers.remove(observer)
            self._failed.append(observer)
        for observer, problem in errors:
            self._report(observer, problem)

    def _report(self, observer: Observer, error: Exception) -> None:
        cause = f"{type(error).__name__}: {error}".partition("\n")[0]
        message = f"{type(observer).__name__} failed and shows nothing more of this run; training continues ({cause})"
        if self._observers:
            self.notice(message)
            return
        with suppress(Exception):
            print(message.encode(errors="backslashreplace").decode(), file=sys.stderr)
