"""A run's events as lines of text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from distrib.observe.format import number, plural, rate, values
from distrib.runs.record import measured_values

if TYPE_CHECKING:
    from distrib.job.plan import Plan, StepPlan
    from distrib.runs.record import Run


def headline(run: Run, plan: Plan) -> str:
    """What starts, in a line."""
    schedule = plan.schedule
    workers = f"{plural(schedule.world_size, 'worker')} on {plan.request.device}"
    return f"{run.id}: {workers}, {plural(schedule.total_steps, 'step')} of {schedule.global_batch_size:,} samples"


def position(event: Mapping[str, Any], schedule: StepPlan | None) -> str:
    """Where in the training an event is: `epoch 2/10  step 30/230`; epochs are counted from 1 here."""
    step = event["step"]
    if schedule is None:
        return f"step {step:,}"
    num_epochs = -(-schedule.total_steps // schedule.steps_per_epoch)
    epoch = max(1, -(-step // schedule.steps_per_epoch))
    shown = f"{step:,}".rjust(len(f"{schedule.total_steps:,}"))
    return f"epoch {epoch:>{len(str(num_epochs))}}/{num_epochs}  step {shown}/{schedule.total_steps:,}"


def training_values(event: Mapping[str, Any]) -> str:
    """What a train event measured: `loss 0.2500  1,234 samples/s`."""
    speed = event.get("samples_per_second")
    return "  ".join([f"loss {number(event.get('loss'))}", *([] if speed is None else [rate(speed)])])


def has_line(event: Mapping[str, Any]) -> bool:
    """Whether an event says something to people; others are notes for programs."""
    return event["event"] in ("train", "eval") or "message" in event


def event_line(event: Mapping[str, Any], schedule: StepPlan | None) -> str:
    """An event in a line: where it is in the training, and what it says."""
    if event["event"] == "train":
        return f"{position(event, schedule)}  {training_values(event)}"
    kind = {"eval": "evaluation"}.get(event["event"], event["event"])
    text = str(event["message"]) if "message" in event else values(measured_values(event))
    return f"{position(event, schedule)}  {kind}" + (f": {text}" if text else "")
