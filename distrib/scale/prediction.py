"""Predictions for more workers: a range, what limits the step, and what would help."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from distrib.errors import JobError
from distrib.scale.model import CostModel
from distrib.scale.result import Interval, StepSplit
from distrib.scale.step_cost import smallest_batch
from distrib.scale.summary import LIMIT_NAMES, NO_LIMIT, SMALL_LOSS

GOAL = 0.9
_UNITS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What the model predicts at one number of workers.

    Attributes:
        workers: The number of workers.
        global_batch_size: Samples of a step.
        step_seconds: The central prediction.
        range: From the optimistic to the pessimistic prediction, in seconds.
        samples_per_second: Of all workers together.
        efficiency: Relative to the smallest measured size.
        efficiency_range: The same for both ends of the range, ascending.
        split: The parts of a step.
        limit: What keeps the step from scaling perfectly.
        batch_for_90_percent: The smallest global batch at which a worker is 90 % as fast as one worker alone with
            the same samples; None if no batch is large enough, or if the model is unreliable.
        steps_faster_with: The factor by which each remedy would increase the samples per second.
    """

    workers: int
    global_batch_size: int
    step_seconds: float
    range: Interval
    samples_per_second: float
    efficiency: float
    efficiency_range: Interval
    split: StepSplit
    limit: str
    batch_for_90_percent: int | None
    steps_faster_with: dict[str, float]


def predict(model: CostModel, workers: Sequence[int]) -> list[Prediction]:
    """Predicts a step at each number of workers."""
    return [_predict(model, size) for size in workers]


def _predict(model: CostModel, workers: int) -> Prediction:
    central = model.cost(workers)
    missed = model.largest_residual
    low = min(central.seconds, model.cost(workers, "optimistic").seconds * (1 - missed / 2))
    high = max(central.seconds, model.cost(workers, "pessimistic").seconds * (1 + missed))
    batch = model.baseline.batch_at(workers)

    def efficiency(seconds: float) -> float:
        return batch / seconds / workers / model.baseline.samples_per_second

    return Prediction(
        workers=workers,
        global_batch_size=round(batch),
        step_seconds=central.seconds,
        range=(low, high),
        samples_per_second=batch / central.seconds,
        efficiency=efficiency(central.seconds),
        efficiency_range=(efficiency(high), efficiency(low)),
        split=central,
        limit=_limit(model, workers, central),
        batch_for_90_percent=_batch_for_goal(model, workers) if model.warning is None else None,
        steps_faster_with=_remedies(model, workers, central.seconds),
    )


def _limit(model: CostModel, workers: int, cost: StepSplit) -> str:
    """What keeps a step from being as short as under perfect scaling."""
    samples = model.baseline.samples_per_worker(workers) * model.baseline.accumulate
    losses = {
        "communication": cost.communication,
        "compute": cost.compute - model.workload.seconds_per_sample * samples,
        "data": cost.data,
        "optimizer": cost.optimizer,
    }
    worst = max(losses, key=lambda part: losses[part])
    if losses[worst] < SMALL_LOSS * cost.seconds:
        return NO_LIMIT
    if worst != "communication":
        return LIMIT_NAMES[worst]
    network = model.links.network(workers)
    intra, inter = (replace(link, alpha_seconds=0.0) for link in (network.intra, network.inter))
    by_bytes = model.cost(workers, network=replace(network, intra=intra, inter=inter)).communication
    return "communication: " + ("bandwidth" if by_bytes > cost.communication / 2 else "latency of messages")


def _batch_for_goal(model: CostModel, workers: int) -> int | None:
    accumulate = model.baseline.accumulate

    def efficiency(batch: int) -> float:
        share = batch / workers / accumulate
        alone = model.cost(1, samples_per_worker=share).seconds
        return alone / model.cost(workers, samples_per_worker=share).seconds

    return smallest_batch(efficiency, GOAL, start=workers * accumulate)


def _remedies(model: CostModel, workers: int, seconds: float) -> dict[str, float]:
    """The factor by which each remedy would increase the samples per second."""
    faster = model.links.network(workers)
    inter = replace(faster.inter, beta_seconds_per_byte=faster.inter.beta_seconds_per_byte / 10)
    faster = replace(faster, inter=inter, intra=inter if model.links.is_uniform else faster.intra)
    twice = model.cost(workers, accumulate=2 * model.baseline.accumulate).seconds
    return {
        "fp16 compression": seconds / model.cost(workers, compression=0.5).seconds,
        "twice the batch by accumulation": 2 * seconds / twice,
        "ten times the link bandwidth": seconds / model.cost(workers, network=faster).seconds,
    }


def parse_link(text: str) -> float:
    """Reads a bandwidth such as `400gbit`, in bits per second.

    Raises:
        JobError: It is not a bandwidth.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)bit(?:/s)?", text.strip().lower())
    if match is None or not float(match[1]):
        raise JobError(f"{text!r} is not a bandwidth; write 400gbit or 100mbit", field="`link`")
    return float(match[1]) * _UNITS[match[2]]
