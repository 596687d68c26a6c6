"""The events of a run as lines of text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from distrib.observe.format import flow, number, plural, rate, value_pairs, values
from distrib.observe.history import RunLength
from distrib.runs.run import logged_values, measured_values

if TYPE_CHECKING:
    from distrib.job.plan import Plan
    from distrib.runs.run import Run


def headline(run: Run, plan: Plan) -> str:
    """The first line about a run: its id, its workers and its length."""
    schedule = plan.schedule
    workers = f"{plural(schedule.world_size, 'worker')} on {plan.request.device}"
    if plan.script is not None:
        return f"{run.id}: {workers}, {plan.script}"
    return f"{run.id}: {workers}, {plural(schedule.total_steps, 'step')} of {schedule.global_batch_size:,} samples"


def position(event: Mapping[str, Any], length: RunLength | None) -> str:
    """Where in the training an event is: `epoch 2/10  step 30/230`; epochs are counted from 1 here."""
    step = event["step"]
    if length is None:
        return f"step {step:,}"
    shown = f"{step:,}".rjust(len(f"{length.total_steps:,}"))
    epoch = f"{length.epoch_of(step):>{len(str(length.num_epochs))}}"
    return f"epoch {epoch}/{length.num_epochs}  step {shown}/{length.total_steps:,}"


def training_values(event: Mapping[str, Any]) -> str:
    """What a train event measured, and what the job's code logged: `loss 0.2500  d_loss 0.1000  1,234 samples/s`."""
    speed = event.get("samples_per_second")
    speeds = [rate(speed)] if isinstance(speed, int | float) else []
    return "  ".join([f"loss {number(event.get('loss'))}", *value_pairs(logged_values(event)), *speeds])


def has_line(event: Mapping[str, Any]) -> bool:
    """Whether an event is shown to people; others are for programs."""
    return event["event"] in ("train", "eval") or "message" in event


def event_line(event: Mapping[str, Any], length: RunLength | None) -> str:
    """An event as a line: its position in the training and its content."""
    if event["event"] == "train":
        return f"{position(event, length)}  {training_values(event)}"
    kind = {"eval": "evaluation"}.get(event["event"], event["event"])
    text = str(event["message"]) if "message" in event else values(measured_values(event))
    return f"{position(event, length)}  {kind}" + (f": {text}" if text else "")


def wrapped_event_line(event: Mapping[str, Any], length: RunLength | None, width: int) -> str:
    """As `event_line`, an evaluation broken into lines of at most `width` columns between its values, never inside."""
    if event["event"] != "eval":
        return event_line(event, length)
    start = f"{position(event, length)}  evaluation: "
    return "\n".join(flow(start, value_pairs(measured_values(event)), width))
