"""A run's events as they can be read, also where the file is damaged or still being written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeGuard

from distrib.observe.format import plural
from distrib.runs.events import parse_event

if TYPE_CHECKING:
    from distrib.job.plan import StepPlan
    from distrib.runs.run import Run

Event = Mapping[str, Any]


@dataclass(frozen=True)
class RunLength:
    """How long a run is planned to be, in optimizer steps."""

    total_steps: int
    steps_per_epoch: int

    @classmethod
    def of_plan(cls, plan: StepPlan) -> RunLength:
        """The length that a plan has."""
        return cls(plan.total_steps, plan.steps_per_epoch)

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> RunLength | None:
        """The length that run.json contains, or None if it contains none."""
        schedule = record.get("schedule")
        values = [schedule.get(name) for name in ("total_steps", "steps_per_epoch")] if schedule else []
        if len(values) == 2 and all(isinstance(value, int) and value > 0 for value in values):
            return cls(values[0], values[1])
        return None

    @property
    def num_epochs(self) -> int:
        """Epochs, the last one possibly cut short."""
        return -(-self.total_steps // self.steps_per_epoch)

    def epoch_of(self, step: int) -> int:
        """The epoch, counted from 1, that optimizer step `step`, counted from 1, belongs to."""
        return max(1, -(-step // self.steps_per_epoch))


@dataclass(frozen=True)
class History:
    """The events of a run.

    Attributes:
        events: All readable events, in the order of the file.
        num_damaged: Lines that are no event.
    """

    events: list[dict[str, Any]]
    num_damaged: int = 0

    def of_kind(self, *kinds: str) -> list[dict[str, Any]]:
        """The events of these kinds."""
        return [event for event in self.events if event["event"] in kinds]

    @property
    def note(self) -> str | None:
        """What a reader should know about damage, or None if there is none."""
        if not self.num_damaged:
            return None
        return f"metrics.jsonl has {plural(self.num_damaged, 'damaged line')}, left out here"


def read_history(run: Run) -> History:
    """Reads the events of a run; a last line without an end, as a writer leaves while it writes, is not damage."""
    try:
        *lines, rest = run.metrics_file.read_bytes().split(b"\n")
    except OSError:
        return History([])
    parsed = [parse_event(line) for line in lines if line.strip()]
    events = [event for event in parsed if is_event(event)]
    num_damaged = len(parsed) - len(events)
    last = parse_event(rest) if rest.strip() else None
    if is_event(last):
        events.append(last)
    elif rest.strip() and run.status != "running":
        num_damaged += 1
    return History(events, num_damaged)


def is_event(event: object) -> TypeGuard[dict[str, Any]]:
    """Whether what was read has the fields that every event has."""
    if not isinstance(event, dict) or not isinstance(event.get("event"), str):
        return False
    counts = (event.get("step"), event.get("attempt"), event.get("samples"))
    return is_number(event.get("time")) and all(
        isinstance(count, int) and not isinstance(count, bool) and count >= 0 for count in counts
    )


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a value of an event is a number, neither null nor a Boolean."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def superseded(events: Iterable[Event]) -> list[bool]:
    """For each event in order, whether a later attempt trained its step again, so that it has no part in the result."""
    found: list[bool] = []
    first_step: dict[int, int] = {}  # of later attempts, the step after which they continued
    for event in reversed(list(events)):
        attempt, step = event["attempt"], event["step"]
        found.append(any(later > attempt and start < step for later, start in first_step.items()))
        if event["event"] == "start":
            first_step[attempt] = min(step, first_step.get(attempt, step))
    return found[::-1]
