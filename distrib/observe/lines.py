"""A run's events as lines of text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from distrib.observe.format import number, plural, values
from distrib.runs.record import measured_values

if TYPE_CHECKING:
    from distrib.job.plan import Plan, Schedule
    from distrib.runs.record import Run


def headline(run: Run, plan: Plan) -> str:
    """What starts, in a line."""
    schedule = plan.schedule
    workers = f"{plural(schedule.world_size, 'worker')} on {plan.request.device}"
    return f"{run.id}: {workers}, {plural(schedule.total_steps, 'step')} of {schedule.global_batch_size:,} samples"


def position(event: Mapping[str, Any], schedule: Schedule | None) -> str:
    """Where in the training an event is: `epoch 2/10  step 30/230`; epochs are counted from 1 here."""
    step = event["step"]
    if schedule is None:
        return f"step {step:,}"
    num_epochs = -(-schedule.total_steps // schedule.steps_per_epoch)
    epoch = max(1, -(-step // schedule.steps_per_epoch))
    shown = f"{step:,}".rjust(len(f"{schedule.total_steps:,}"))
    return f"epoch {epoch:>{len(str(num_epochs))}}/{num_epochs}  step {shown}/{schedule.total_steps:,}"


def training_values(event: Mapping[str, Any]) -> str:
    """What a train event measured: `loss 0.25  1,234 samples/s`."""
    speed = event.get("samples_per_second")
    rate = [] if speed is None else [f"{speed:,.0f} samples/s" if speed >= 10 else f"{number(speed)} samples/s"]
    return "  ".join([f"loss {number(event.get('loss'))}", *rate])


def event_line(event: Mapping[str, Any]) -> str:
    """Any other event in a line: `step 30: evaluation: accuracy 0.978  loss 0.07`."""
    named = {"eval": "evaluation"}.get(event["event"], event["event"])
    text = str(event["message"]) if "message" in event else values(measured_values(event))
    return f"step {event['step']:,}: {named}" + (f": {text}" if text else "")
