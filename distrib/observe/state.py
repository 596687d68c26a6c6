"""What a run is doing now, from its events: shared by `run`, `watch` and `status`."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from distrib.observe.activity import STALLED
from distrib.observe.history import Event, RunLength
from distrib.observe.rank_table import RankHealth
from distrib.observe.terminal.sparkline import Sparkline
from distrib.runs.events import is_number

if TYPE_CHECKING:
    from distrib.job.plan import Plan
    from distrib.runs.run import Run

_NUM_RECENT = 3
"""The train events that are kept, for the summary of a run that failed."""


class RunState:
    """The state of a run after the events so far.

    Args:
        length: The planned length; None if unknown.
        started: Unix seconds at which the launcher began.
        first_step: The completed steps from which the run is continued.
    """

    def __init__(self, length: RunLength | None, started: float, first_step: int = 0) -> None:
        self.length = length
        self.started = started
        self.last_train: Event | None = None
        self.recent_train: deque[Event] = deque(maxlen=_NUM_RECENT)
        self.last_eval: Event | None = None
        self.last_checkpoint: Event | None = None
        self.last: Event | None = None
        self.num_restarts = 0
        self.num_resizes = 0
        self.world_size: int | None = None
        self.losses = Sparkline()
        self.ranks = RankHealth()
        self._first_step = first_step
        self._first_of_attempt: Event | None = None
        self._message: tuple[float, str] | None = None

    def add(self, event: Event) -> None:
        """Takes an event into account."""
        self.last = event
        self.ranks.add(event)
        kind = event["event"]
        if self._message is not None and self._message[1].startswith(STALLED) and event["time"] > self._message[0]:
            self._message = None
        if kind == "train":
            self._add_train(event)
        elif kind == "eval":
            self.last_eval = event
        elif kind == "checkpoint":
            self.last_checkpoint = event
        elif kind == "restart":
            self.num_restarts += 1
        elif kind == "resize":
            self.num_resizes += 1
        elif kind == "start":
            self.world_size = event.get("world_size")
            self._message = None
            self._first_of_attempt = None

    def set_message(self, time: float, text: str) -> bool:
        """Notes what the run waits for, until training continues; returns whether that is new."""
        is_new = self._message is None or self._message[1] != text
        self._message = time, text
        return is_new

    @property
    def step(self) -> int:
        """Optimizer steps that are known to be completed: after a restart, those of its checkpoint."""
        return self._first_step if self.last is None else int(self.last["step"])

    @property
    def has_steps(self) -> bool:
        """Whether the run counts steps: not if it is of a script without a session."""
        return self.length is not None or self.world_size is not None or self.step > 0

    @property
    def speed(self) -> float | None:
        """Samples a second, waiting for data included; an attempt's first step, whose wait is not known, has none."""
        event = self.last_train
        if event is None or not is_number(event.get("samples_per_second")):
            return None
        is_first = event is self._first_of_attempt
        return None if is_first and not event.get("data_seconds") else float(event["samples_per_second"])

    def seconds_left(self, now: float) -> float | None:
        """Seconds until the last step, at the mean speed of this attempt since its first train event.

        The time of everything counts: data, evaluation and checkpoints. None before the attempt's second train event.
        """
        first, last = self._first_of_attempt, self.last_train
        if first is None or last is None or self.length is None:
            return None
        steps = last["step"] - first["step"]
        if steps <= 0:
            return None
        rest = (last["time"] - first["time"]) / steps * (self.length.total_steps - last["step"])
        return float(max(0.0, rest - max(0.0, now - last["time"])))

    @property
    def activity(self) -> str:
        """What the run is doing, in a few words: `training`, `starting`, `restarting: …`, `waiting for 2 hosts …`."""
        kind = None if self.last is None else self.last["event"]
        if self._message is not None:
            return self._message[1]
        if not self.has_steps:
            return "running"
        if self.last is None:
            return "starting"
        if kind in ("restart", "resize"):
            return f"{'restarting' if kind == 'restart' else 'resizing'}: {self.last.get('message', '')}".rstrip(": ")
        if kind == "start" or self.last_train is None:
            return "first step" if not self.step else f"training from step {self.step:,}"
        return "training"

    def _add_train(self, event: Event) -> None:
        if self._first_of_attempt is None or event["attempt"] != self._first_of_attempt["attempt"]:
            self._first_of_attempt = event
        self.last_train = event
        self.recent_train.append(event)
        if is_number(event.get("loss")):
            self.losses.add(float(event["loss"]))


def starting_state(run: Run, plan: Plan, now: float) -> RunState:
    """The state of a run that a launcher starts, or continues from its newest checkpoint.

    Args:
        run: The run.
        plan: What is about to run.
        now: Unix seconds.
    """
    checkpoints = run.checkpoints.list()
    return RunState(RunLength.of_plan(plan.schedule), now, checkpoints[0].step if checkpoints else 0)
