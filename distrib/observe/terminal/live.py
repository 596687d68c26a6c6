"""Progress on a terminal: two lines that change in place, and the lines worth keeping scrolling above them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Self, TextIO, cast

from rich.console import Console
from rich.live import Live
from rich.text import Text

from distrib.observe.rank_logs import rank_on_host
from distrib.observe.state import RunState, starting_state
from distrib.observe.terminal.lines import event_line, has_line, headline, wrapped_event_line
from distrib.observe.terminal.stream import PatientStream
from distrib.observe.terminal.view import render

if TYPE_CHECKING:
    from distrib.job.plan import Plan
    from distrib.runs.run import Run

REDRAW_SECONDS = 0.1
_STYLES = {"warning": "yellow", "restart": "yellow", "resize": "yellow"}


class LiveProgress:
    """Shows a run on a terminal.

    It draws only when it is called, not from a thread: the launcher forks.

    Args:
        terminal: A terminal, or a console for one.
        now: Returns Unix seconds, the clock of the events.
    """

    def __init__(self, terminal: Console | TextIO, now: Callable[[], float] = time.time) -> None:
        self.finished_run: Run | None = None
        self._stream = None if isinstance(terminal, Console) else PatientStream(terminal)
        self._console = (
            terminal if isinstance(terminal, Console) else Console(file=cast(TextIO, self._stream), highlight=False)
        )
        self._now = now
        self._drawn = 0.0
        self._shown_step = 0
        self._state = RunState(None, now())
        self._live = Live(
            console=self._console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
        )

    def started(self, run: Run, plan: Plan) -> None:
        """Prints the headline and shows the moving lines."""
        self.attach(headline(run, plan), starting_state(run, plan, self._now()))

    def attach(self, title: str, state: RunState) -> None:
        """Prints a title and shows the moving lines for a run in the given state."""
        self._state = state
        self._print(Text(title))
        self._live.start()
        self._draw()

    def event(self, event: Mapping[str, Any]) -> None:
        """Updates the moving lines; prints the event above them unless it is about training before the last step."""
        self._state.add(event)
        if event["event"] == "train":
            self.idle()
        self.show(event)

    def show(self, event: Mapping[str, Any]) -> None:
        """Prints an event above the moving lines, which stay as they are."""
        if has_line(event) and (event["event"] != "train" or self._is_complete()):
            self._shown_step = event["step"]
            line = wrapped_event_line(event, self._state.length, self._console.width)
            self._print(Text(line, style=_STYLES.get(event["event"], "")))

    def output(self, rank: int, host: str, line: str) -> None:
        """Prints what a rank printed above the moving lines, with its colors."""
        self._print(Text(f"[{rank_on_host(rank, host)}] ", style="dim") + Text.from_ansi(line))

    def notice(self, message: str) -> None:
        """Prints a message of the launcher above the moving lines."""
        self._print(Text(message, style="yellow"))

    def waiting(self, reason: str) -> None:
        """Prints what the run waits for, and shows it until training continues."""
        if self._state.set_message(self._now(), reason):
            self.notice(reason)

    def idle(self) -> None:
        """Redraws the moving lines, at most ten times a second."""
        if self._live.is_started and abs(self._now() - self._drawn) >= REDRAW_SECONDS:
            self._draw()

    def finished(self, run: Run) -> None:
        """Removes the moving lines; if training ended early, its last values stay, unless a later line is above."""
        self.finished_run = run
        self.__exit__()
        last = self._state.last_train
        if last is not None and not self._is_complete() and last["step"] >= self._shown_step:
            self._print(Text(event_line(last, self._state.length)))
        self._drain()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()
        self._drain()

    def _is_complete(self) -> bool:
        last, length = self._state.last_train, self._state.length
        return last is not None and length is not None and last["step"] == length.total_steps

    def _print(self, text: Text) -> None:
        self._console.print(text, soft_wrap=True)

    def _draw(self) -> None:
        self._drawn = self._now()
        self._live.update(render(self._state, self._drawn, self._console.width), refresh=True)

    def _drain(self) -> None:
        if self._stream is not None:
            self._stream.drain()
