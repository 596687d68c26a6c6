"""Rows from the times of runs."""

from collections.abc import Mapping, Sequence

from tests.bench.compare import Row
from tests.bench.process import SideFailedError
from tests.bench.sides import Timing

TITLES = {
    "first_step_seconds": "launch to the end of the first step, s",
    "step_milliseconds": "a step after the tenth, ms",
    "mean_step_milliseconds": "a step of the whole run, ms",
    "process_seconds": "the whole process, s",
}


def timing_rows(
    name: str, ours: Sequence[Timing], peer: Sequence[Timing], bounds: Mapping[str, float | None]
) -> list[Row]:
    """One row for each of `bounds`, by the name of a time of `Timing`.

    Raises:
        SideFailedError: If the sides did not take the same number of steps.
    """
    steps = {timing.num_steps for timing in (*ours, *peer)}
    if len(steps) != 1:
        raise SideFailedError(f"{name}: the sides took different numbers of steps: {sorted(steps)}")
    return [
        Row(
            f"{name}: {TITLES[field]}",
            tuple(getattr(timing, field) for timing in ours),
            tuple(getattr(timing, field) for timing in peer),
            bound,
        )
        for field, bound in bounds.items()
    ]
