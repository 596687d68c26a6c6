"""Progress on a terminal: one line that moves, and all that is worth keeping scrolling above it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Self, TextIO

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from distrib.observe.format import duration
from distrib.observe.lines import event_line, has_line, headline, position, training_values

if TYPE_CHECKING:
    from distrib.job.plan import Plan, StepPlan
    from distrib.runs.record import Run

REDRAW_SECONDS = 0.1
MIN_BAR_WIDTH = 8


class LiveProgress:
    """Draws only when it is told something, never from a thread of its own: the launcher forks.

    Args:
        console: The terminal, or a stream that is one.
        now: Unix seconds, the clock of the events.
    """

    def __init__(self, console: Console | TextIO, now: Callable[[], float] = time.time) -> None:
        self.finished_run: Run | None = None
        self._console = console if isinstance(console, Console) else Console(file=console, highlight=False)
        self._now = now
        self._start = now()
        self._drawn = 0.0
        self._right_width = 0  # only ever grows, so that the bar does not jump
        self._schedule: StepPlan | None = None
        self._first: Mapping[str, Any] | None = None
        self._last: Mapping[str, Any] | None = None
        self._live = Live(
            console=self._console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
        )

    def started(self, run: Run, plan: Plan) -> None:
        """Says what starts, and shows the moving line."""
        self._schedule = plan.schedule
        self._start = self._now()
        self._print(Text(headline(run, plan)))
        self._live.start()
        self._draw()

    def event(self, event: Mapping[str, Any]) -> None:
        """Moves the line, or prints above it what is worth keeping: all but training before its last step."""
        if event["event"] == "train":
            if self._first is None or event["attempt"] != self._first["attempt"]:
                self._first = event
            self._last = event
            self.idle()
        if has_line(event) and (event["event"] != "train" or self._is_complete()):
            self._print(Text(event_line(event, self._schedule), style="yellow" if event["event"] == "warning" else ""))

    def output(self, rank: int, line: str) -> None:
        """Prints what a rank printed above the moving line, colours included."""
        self._print(Text(f"[rank {rank}] ", style="dim") + Text.from_ansi(line))

    def notice(self, message: str) -> None:
        """Prints what the launcher says above the moving line."""
        self._print(Text(message, style="yellow"))

    def idle(self) -> None:
        """Redraws what moves, at most ten times a second."""
        if self._live.is_started and abs(self._now() - self._drawn) >= REDRAW_SECONDS:
            self._draw()

    def finished(self, run: Run) -> None:
        """Takes the moving line away; of a training that ended early, leaves the last it said."""
        self.finished_run = run
        self.__exit__()
        if self._last is not None and not self._is_complete():
            self._print(Text(event_line(self._last, self._schedule)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()

    def _is_complete(self) -> bool:
        return bool(self._last and self._schedule and self._last["step"] == self._schedule.total_steps)

    def _print(self, text: Text) -> None:
        self._console.print(text, soft_wrap=True)

    def _draw(self) -> None:
        self._drawn = self._now()
        self._live.update(self._line(), refresh=True)

    def _line(self) -> Table | Text:
        """The line that moves: where training is, a bar where there is room, the last values and the time left."""
        if self._last is None or self._schedule is None:
            return Text(f"starting … {duration(self._now() - self._start)}", style="dim", no_wrap=True)
        left = Text(position(self._last, self._schedule))
        right = Text(training_values(self._last))
        if (rest := self.seconds_left()) is not None:
            right.append(f"  {duration(rest)} left", style="dim")
        self._right_width = max(self._right_width, right.cell_len)
        room = self._console.width - left.cell_len - self._right_width - 4
        if room < MIN_BAR_WIDTH:
            return Text("  ", no_wrap=True, overflow="ellipsis").join([left, right])
        line = Table.grid(padding=(0, 2, 0, 0))
        bar = ProgressBar(total=self._schedule.total_steps, completed=self._last["step"], width=room)
        line.add_row(left, bar, right)
        return line

    def seconds_left(self) -> float | None:
        """How long training still takes at its mean speed since the first step; None before the second event."""
        if self._first is None or self._last is None or self._schedule is None:
            return None
        steps = self._last["step"] - self._first["step"]
        if steps <= 0:
            return None
        since_first = float(self._last["time"] - self._first["time"])
        rest = since_first / steps * (self._schedule.total_steps - self._last["step"])
        return float(max(0.0, rest - max(0.0, self._now() - self._last["time"])))
