"""A run's events as they can be read, also where the file is damaged or still being written."""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distrib.observe.format import plural
from distrib.runs.events import parse_event

if TYPE_CHECKING:
    from distrib.job.step_plan import StepPlan
    from distrib.runs.run import Run

Event = Mapping[str, Any]


@dataclass(frozen=True)
class RunLength:
    """How long a run is planned to be, in optimizer steps.

    Attributes:
        total_steps: The steps of the run.
        steps_per_epoch: Those of each epoch, or of the first one.
        epoch_ends: The steps completed at the end of each epoch, if epochs differ in their steps.
    """

    total_steps: int
    steps_per_epoch: int
    epoch_ends: tuple[int, ...] = ()

    @classmethod
    def of_plan(cls, plan: StepPlan) -> RunLength | None:
        """The length that a plan has; None for a script, whose steps are not known."""
        return None if plan.total_steps == 0 else cls(plan.total_steps, plan.steps_per_epoch, plan.epoch_ends)

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> RunLength | None:
        """The length that run.json contains, or None if it contains none."""
        schedule = record.get("schedule")
        values = [schedule.get(name) for name in ("total_steps", "steps_per_epoch")] if schedule else []
        if len(values) == 2 and all(isinstance(value, int) and value > 0 for value in values):
            return cls(values[0], values[1], _epoch_ends(record["schedule"].get("order")))
        return None

    @property
    def num_epochs(self) -> int:
        """Epochs, the last one possibly cut short."""
        if self.epoch_ends:
            return self.epoch_of(self.total_steps)
        return -(-self.total_steps // self.steps_per_epoch)

    def epoch_of(self, step: int) -> int:
        """The epoch, counted from 1, that optimizer step `step`, counted from 1, belongs to."""
        if self.epoch_ends:
            return min(bisect_left(self.epoch_ends, step) + 1, len(self.epoch_ends))
        return max(1, -(-step // self.steps_per_epoch))


def _epoch_ends(order: Any) -> tuple[int, ...]:
    """The ends of epochs that differ in their steps, from what run.json has of the job's order."""
    if not isinstance(order, Mapping) or not order.get("may_differ"):
        return ()
    counts = order.get("num_steps")
    is_whole = isinstance(counts, list) and all(isinstance(count, int) and count > 0 for count in counts)
    return tuple(itertools.accumulate(counts)) if is_whole else ()  # type: ignore[arg-type]


class EventReader:
    """Reads the events of a run, one at a time, from the beginning.

    Lines that are no event are left out and counted. A last line without an end is what a writer leaves while it
    writes; it is damage only if the run has ended.

    Args:
        run: The run.

    Attributes:
        num_damaged: Lines left out so far.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self.num_damaged = 0
        self._problem: str | None = None

    def __iter__(self) -> Iterator[dict[str, Any]]:
        self.num_damaged = 0
        try:
            file = self._run.metrics_file.open("rb")
        except FileNotFoundError:
            return
        except OSError as error:
            self._problem = f"metrics.jsonl cannot be read: {error.strerror or error}"
            return
        with file:
            for line in file:
                event = parse_event(line)
                if event is not None:
                    yield event
                elif line.strip() and (line.endswith(b"\n") or self._run.status != "running"):
                    self.num_damaged += 1

    @property
    def note(self) -> str | None:
        """What a reader should know about damage, or None if there is none."""
        if not self.num_damaged:
            return self._problem
        return f"metrics.jsonl has {plural(self.num_damaged, 'damaged line')}, left out here"
