"""What it costs ranks to agree, by their number: ranks without a model, all of them on this machine.

Latency says nothing where many ranks share two cores, so CPU time is measured, and extrapolated to 1,024 ranks.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean, median

from distrib.scale.fit import fit_line
from tests.bench.compare import Row
from tests.support.control_costs import cpu_seconds_of
from tests.support.ranks import run_ranks, start_rank_server

SIZES = (2, 4, 8, 16, 32, 64)
MANY = 1024
EXCHANGE_SECONDS = 0.5
"""The time between two exchanges of a training; see `distrib.train.control`."""


@dataclass(frozen=True)
class Cost:
    """CPU milliseconds of an operation: the mean over the ranks, and that of the busiest rank."""

    mean: float
    busiest: float


def measure(rounds: int) -> list[Row]:
    """Rows for exchanges, checkpoint plans and process groups."""
    start_rank_server()
    rows: list[Row] = []
    for name, share_of in OPERATIONS.items():
        ours = {size: _median([_cost(name, "tree", size) for _ in range(rounds)]) for size in SIZES}
        peer = _cost(name, "ring", SIZES[-1])
        rows.append(Row(f"{name} on {SIZES[-1]} ranks, CPU of a rank, ms, against all_gather",
                        (ours[SIZES[-1]].mean,), (peer.mean,), 0.5))  # fmt: skip
        for size, cost in ours.items():
            rows.append(Row(f"{name} on {size} ranks, CPU of a rank, ms", (cost.mean,)))
        line = fit_line([(1.0, float(size), cost.busiest) for size, cost in ours.items()])
        busiest = line.intercept + line.slope * MANY
        rows.append(Row(f"{name} on {MANY} ranks, CPU of the busiest rank by a fitted line, ms", (busiest,)))
        if share_of is not None:
            share = busiest / (share_of * 1e3) * 100
            rows.append(Row(f"{name} on {MANY} ranks, share of the time of the busiest rank, %", (share,), bound=1.0))
    return rows


def _median(costs: list[Cost]) -> Cost:
    return Cost(median(cost.mean for cost in costs), median(cost.busiest for cost in costs))


def _cost(operation: str, way: str, num_ranks: int) -> Cost:
    is_lazy = way == "tree" or operation != "a process group"
    seconds = run_ranks(
        cpu_seconds_of, num_ranks, operation, way, environment={"TORCH_GLOO_LAZY_INIT": str(int(is_lazy))}
    )
    return Cost(fmean(seconds) * 1e3, max(seconds) * 1e3)


OPERATIONS: dict[str, float | None] = {
    "an exchange": EXCHANGE_SECONDS,
    "the plan of a checkpoint": None,
    "a process group": None,
}
"""What is measured, and how many seconds lie between two of them if they are regular."""
