"""What an experiment's measurements say of more workers: a range, its assumptions, and what would help."""

from __future__ import annotations

import math
import re
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from distrib.errors import JobError
from distrib.scale.cost import (
    Bucket,
    Link,
    Network,
    StepCost,
    Topology,
    Workload,
    expected_straggling,
    smallest_batch,
    step_cost,
)
from distrib.scale.fit import Timing, fit_compute, fit_growth, fit_ring
from distrib.scale.results import Record

Kind = Literal["optimistic", "central", "pessimistic"]
GOAL = 0.9
_UNITS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}


@dataclass(frozen=True)
class CostModel:
    """A job's cost model, from an experiment.

    Attributes:
        workload: What a worker does in a step.
        link: α and β between hosts; within the only host, where all workers stood on one.
        intra: α and β within a host, from the sizes that one host held; else `link`.
        workers_per_host: The most workers on a host.
        alphas: α of `link` by number of workers, from the sweep of each.
        link_error: Standard error of the fit of `link`, relative.
        algorithm: How gradients are reduced.
        deviation: Relative standard deviation of workers' compute times.
        is_weak: Whether the batch grows with the workers.
        base_batch: Global batch at the base.
        base_workers: The smallest size measured.
        base_rate: Samples a second of one of its workers.
        accumulate: Micro-batches of a step.
        residuals: Modelled by measured seconds, minus 1, for each size measured.
        notes: What is assumed.
    """

    workload: Workload
    link: Link
    intra: Link
    workers_per_host: int
    alphas: dict[int, float]
    link_error: float
    algorithm: str
    deviation: float
    is_weak: bool
    base_batch: int
    base_workers: int
    base_rate: float
    accumulate: int
    residuals: dict[int, float]
    notes: tuple[str, ...]

    def samples_per_worker(self, workers: int) -> float:
        """The samples of one worker's micro-batch."""
        batch = self.base_batch * (workers / self.base_workers if self.is_weak else 1)
        return batch / workers / self.accumulate

    def network(self, workers: int, kind: Kind = "central") -> Network:
        """The links at a number of workers: `optimistic`, `central` or `pessimistic`."""
        sign = {"optimistic": -1, "central": 0, "pessimistic": 1}[kind]
        beta = self.link.beta_seconds_per_byte * (1 + sign * min(0.5, self.link_error))
        inter = Link(self.alpha(workers, kind), beta)
        intra = inter if self.intra == self.link else self.intra
        return Network(intra, inter, "best" if self.algorithm == "best" else "ring")

    def topology(self, workers: int) -> Topology:
        """Where so many workers stand."""
        return Topology(workers, 1 if self.intra == self.link else self.workers_per_host)

    def alpha(self, workers: int, kind: Kind) -> float:
        """What a message costs: the least that was measured, or growing with the workers as it did in the sweeps.

        At best it does not grow; the central value grows up to twice the workers measured; at worst it goes on.
        """
        known = [(size, alpha) for size, alpha in self.alphas.items() if alpha > 0]
        if len(known) < 2:
            return self.link.alpha_seconds
        if kind == "optimistic":
            return min(alpha for _, alpha in known)
        growth = fit_growth(known)
        reach = workers if kind == "pessimistic" else min(workers, 2 * max(self.alphas))
        return growth.intercept + growth.slope * reach

    def cost(
        self,
        workers: int,
        kind: Kind = "central",
        *,
        network: Network | None = None,
        samples_per_worker: float | None = None,
        accumulate: int | None = None,
        compression: float = 1.0,
    ) -> StepCost:
        """A step on so many workers; what is not given is as the job has it."""
        share = {"optimistic": 0.0, "central": 0.5, "pessimistic": 1.0}[kind]
        return step_cost(
            self.workload,
            network or self.network(workers, kind),
            self.topology(workers),
            self.samples_per_worker(workers) if samples_per_worker is None else samples_per_worker,
            accumulate=accumulate or self.accumulate,
            compression=compression,
            straggling=share * expected_straggling(self.deviation, workers),
        )


def make_model(result: Record) -> CostModel:
    """The cost model of an experiment.

    Raises:
        JobError: It has not measured two sizes, one of them of several workers.
    """
    rows = [row for row in result["sizes"] if row["status"] == "measured"]
    if len(rows) < 2:
        raise JobError("a prediction needs at least two measured sizes; measure more, as in --workers 1,2,4")
    samples = [sample for sample in result["samples"] if sample.get("measurement")]
    largest = next(one["measurement"] for one in samples if one["workers"] == rows[-1]["workers"])
    accumulate = int(largest["accumulate"])
    times = [
        (row["global_batch_size"] / row["workers"] / accumulate, row["split"]["compute"] / accumulate) for row in rows
    ]
    compute = fit_compute(times)
    workload = Workload(
        data_seconds=statistics.median(row["split"]["data"] for row in rows) / accumulate,
        fixed_seconds=compute.intercept,
        seconds_per_sample=compute.slope,
        optimizer_seconds=statistics.median(row["split"]["optimizer"] for row in rows),
        buckets=[Bucket(size, fraction) for size, fraction in largest["buckets"]],
    )
    timings, intra_timings = _timings(samples)
    fitted = fit_ring(timings)
    by_size = {
        size: fit_ring([one for one in timings if one.workers == size]).link.alpha_seconds
        for size in sorted({one.workers for one in timings})
    }
    deviations = [row["straggling"] / expected_straggling(1.0, row["workers"]) for row in rows if row["workers"] > 1]
    model = CostModel(
        workload=workload,
        link=fitted.link,
        intra=fit_ring(intra_timings).link if intra_timings else fitted.link,
        workers_per_host=max(Counter(largest["hosts"]).values()),
        alphas=by_size,
        link_error=fitted.relative_error / math.sqrt(len(timings)),
        algorithm="best" if largest["backend"] == "nccl" else "ring",
        deviation=statistics.median(deviations),
        is_weak=result["mode"] == "weak",
        base_batch=rows[0]["global_batch_size"],
        base_workers=rows[0]["workers"],
        base_rate=rows[0]["samples_per_second"] / rows[0]["workers"],
        accumulate=accumulate,
        residuals={},
        notes=tuple(_assumptions(rows, result["mode"])),
    )
    residuals = {row["workers"]: model.cost(row["workers"]).seconds / row["step_seconds"] - 1 for row in rows}
    return replace(model, residuals=residuals)


def with_bandwidth(model: CostModel, bits_per_second: float) -> CostModel:
    """The model with another bandwidth of its links; what a message costs stays."""
    note = f"links of {bits_per_second / 1e9:g} Gbit/s used to the full, with the message cost that was measured"
    link = Link(model.link.alpha_seconds, 8 / bits_per_second)
    intra = link if model.intra == model.link else model.intra
    return replace(model, link=link, intra=intra, notes=(*model.notes, note))


def predict(model: CostModel, workers: Sequence[int]) -> list[Record]:
    """What the model says of each number of workers, and what would help there."""
    return [_predict(model, size) for size in workers]


def _predict(model: CostModel, workers: int) -> Record:
    central = model.cost(workers)
    missed = max((abs(residual) for residual in model.residuals.values()), default=0.0)
    low = model.cost(workers, "optimistic").seconds * (1 - missed / 2)
    high = model.cost(workers, "pessimistic").seconds * (1 + missed)
    batch = model.samples_per_worker(workers) * workers * model.accumulate

    def efficiency(seconds: float) -> float:
        return batch / seconds / workers / model.base_rate

    return {
        "workers": workers,
        "global_batch_size": round(batch),
        "step_seconds": central.seconds,
        "range": [min(low, central.seconds), max(high, central.seconds)],
        "samples_per_second": batch / central.seconds,
        "efficiency": efficiency(central.seconds),
        "efficiency_range": [efficiency(max(high, central.seconds)), efficiency(min(low, central.seconds))],
        "split": {
            "data": central.data,
            "compute": central.compute,
            "communication": central.communication,
            "optimizer": central.optimizer,
        },
        "limit": limit(model, workers),
        "batch_for_90_percent": _batch_for_goal(model, workers),
        "steps_faster_with": _remedies(model, workers, central.seconds),
    }


def limit(model: CostModel, workers: int) -> str:
    """What keeps a step from being as short as perfect scaling would have it, in words."""
    cost = model.cost(workers)
    samples = model.samples_per_worker(workers)
    useful = model.workload.seconds_per_sample * samples * model.accumulate
    losses = {
        "communication": cost.communication,
        "the fixed part of compute": cost.compute - useful,
        "waiting for data": cost.data,
        "the optimizer": cost.optimizer,
    }
    worst = max(losses, key=lambda name: losses[name])
    if losses[worst] < 0.02 * cost.seconds:
        return "nothing but compute"
    if worst == "communication":
        network = model.network(workers)
        intra, inter = (replace(link, alpha_seconds=0.0) for link in (network.intra, network.inter))
        by_bytes = model.cost(workers, network=replace(network, intra=intra, inter=inter)).communication
        return "communication: " + ("bandwidth" if by_bytes > cost.communication / 2 else "latency of messages")
    return worst


def _batch_for_goal(model: CostModel, workers: int) -> int | None:
    """The global batch at which a worker of so many is 90 % as fast as one alone with the same samples."""

    def efficiency(batch: int) -> float:
        share = batch / workers / model.accumulate
        alone = model.cost(1, samples_per_worker=share).seconds
        return alone / model.cost(workers, samples_per_worker=share).seconds

    return smallest_batch(efficiency, GOAL, start=workers * model.accumulate)


def _remedies(model: CostModel, workers: int, seconds: float) -> dict[str, float]:
    """How many times the samples a second each remedy would bring."""
    network = model.network(workers)
    inter = replace(network.inter, beta_seconds_per_byte=network.inter.beta_seconds_per_byte / 10)
    faster = replace(network, inter=inter, intra=inter if network.intra == network.inter else network.intra)
    twice = model.cost(workers, accumulate=2 * model.accumulate).seconds
    return {
        "fp16 compression": seconds / model.cost(workers, compression=0.5).seconds,
        "twice the batch, accumulated": 2 * seconds / twice,
        "a link of ten times the bandwidth": seconds / model.cost(workers, network=faster).seconds,
    }


def parse_link(text: str) -> float:
    """`400gbit` in bits a second.

    Raises:
        JobError: It is something else.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)bit(?:/s)?", text.strip().lower())
    if match is None or not float(match[1]):
        raise JobError(f"{text!r} is not a bandwidth; write 400gbit or 100mbit", field="--link")
    return float(match[1]) * _UNITS[match[2]]


def _timings(samples: Sequence[Record]) -> tuple[list[Timing], list[Timing]]:
    """The medians of the all-reduces measured: of those over hosts and of those within one, where there are both."""
    by_reach: dict[bool, list[Timing]] = {True: [], False: []}
    for sample in samples:
        measurement = sample["measurement"]
        by_reach[len(set(measurement["hosts"])) > 1] += [
            Timing(sample["workers"], entry["num_bytes"], statistics.median(entry["seconds"]))
            for entry in measurement["sweep"]
        ]
    return (by_reach[True], by_reach[False]) if by_reach[True] else (by_reach[False], [])


def _assumptions(rows: Sequence[Record], mode: str) -> list[str]:
    hosts = max(row["hosts"] for row in rows)
    where = "between the hosts measured" if hosts > 1 else "within the one host measured"
    notes = [
        f"every link is as those {where}, and hosts hold as many workers",
        "the range: a message's cost does not grow with the workers … grows as it did in the sweeps, the slowest "
        "worker as late as the scatter measured lets expect, and the model as far off as at the sizes measured",
    ]
    if mode == "strong" and len({row["workers"] for row in rows}) < 3:
        notes.append("compute at other batches is a line through two points")
    return notes
