"""The metrics of a training, and the values that each event gives them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

RUN_LABELS = ("run", "job")
"""Labels of every metric: the run's id and the job's name."""


@dataclass(frozen=True)
class Metric:
    """A gauge: a value that is set, and read at any time.

    Attributes:
        name: Its name, with the unit at the end.
        help: What it is.
        label: The name of its own label, besides those of the run; empty if it has none.
    """

    name: str
    help: str
    label: str = ""


@dataclass(frozen=True)
class Sample:
    """A value for a metric.

    Attributes:
        metric: The metric.
        value: Its new value.
        label: The value of the metric's own label.
    """

    metric: Metric
    value: float
    label: str = ""


RUNNING = Metric("distrib_running", "1 while the run trains, 0 after its end")
WORKERS = Metric("distrib_workers", "Number of ranks")
TOTAL_STEPS = Metric("distrib_total_steps", "Optimizer steps that the run will have")
RESTARTS = Metric("distrib_restarts", "Restarts after lost processes, hosts or connections, over the run's whole life")
EVENT_TIME = Metric("distrib_last_event_timestamp_seconds", "When the run last reported anything, in Unix seconds")
CHECKPOINT_STEP = Metric("distrib_checkpoint_step", "Step of the newest checkpoint")
CHECKPOINT_SECONDS = Metric("distrib_checkpoint_seconds", "Time to write the newest checkpoint, beside training")
CHECKPOINT_STALL = Metric("distrib_checkpoint_stall_seconds", "Time that the newest checkpoint held training up")
LEARNING_RATE = Metric("distrib_learning_rate", "Learning rate", "optimizer")
EVALUATION = Metric("distrib_evaluation", "Value of the newest evaluation", "metric")
_RANKS = {
    "rank_step_seconds": Metric(
        "distrib_rank_step_seconds", "Mean time of a step on a rank since the last event", "rank"
    ),
    "rank_data_seconds": Metric(
        "distrib_rank_data_wait_seconds", "Mean time per step that a rank waited for data", "rank"
    ),
}

_TRAIN = {
    "step": Metric("distrib_step", "Completed optimizer steps of the whole run"),
    "epoch": Metric("distrib_epoch", "Epoch of that step, from 0"),
    "samples": Metric("distrib_samples", "Samples trained on in the whole run"),
    "loss": Metric("distrib_loss", "Mean training loss since the last event"),
    "step_seconds": Metric("distrib_step_seconds", "Mean time of a step since the last event, waiting included"),
    "data_seconds": Metric("distrib_data_wait_seconds", "Mean time per step that rank 0 waited for data"),
    "samples_per_second": Metric("distrib_samples_per_second", "Samples trained on per second, all ranks together"),
}
METRICS = (
    *(RUNNING, WORKERS, TOTAL_STEPS, RESTARTS, EVENT_TIME, *_TRAIN.values(), LEARNING_RATE, EVALUATION),
    *(CHECKPOINT_STEP, CHECKPOINT_SECONDS, CHECKPOINT_STALL, *_RANKS.values()),
)
_NOT_EVALUATED = frozenset({"time", "attempt", "event", "step", "epoch", "samples"})


def samples_of(event: Mapping[str, Any]) -> Iterator[Sample]:
    """The values that an event of metrics.jsonl gives to metrics; values that are not numbers are left out."""
    yield from _numbers(EVENT_TIME, event.get("time"))
    kind = event.get("event")
    if kind == "train":
        for field, metric in _TRAIN.items():
            yield from _numbers(metric, event.get(field))
        rate = event.get("lr")
        rates = rate if isinstance(rate, Mapping) else {"default": rate}
        for name, value in rates.items():
            yield from _numbers(LEARNING_RATE, value, name)
        for field, metric in _RANKS.items():
            for rank, value in enumerate(event.get(field) or ()):
                yield from _numbers(metric, value, str(rank))
    elif kind == "eval":
        for name in event.keys() - _NOT_EVALUATED:
            yield from _numbers(EVALUATION, event[name], name)
    elif kind == "checkpoint":
        yield from _numbers(CHECKPOINT_STEP, event.get("step"))
        yield from _numbers(CHECKPOINT_SECONDS, event.get("save_seconds"))
        yield from _numbers(CHECKPOINT_STALL, event.get("stall_seconds"))


def _numbers(metric: Metric, value: object, label: str = "") -> Iterator[Sample]:
    if isinstance(value, int | float) and not isinstance(value, bool):
        yield Sample(metric, float(value), label)
