"""Trackers that fail: the steps of a job that has one, against those of the same job without."""

from functools import partial

from tests.bench.compare import Row, take_turns
from tests.bench.families.timings import timing_rows
from tests.bench.sides import ours

BOUNDS = {"step_milliseconds": 1.01}
LONG = ("--set", "train.epochs=100")
FAILING = {"raises at every event": "Broken", "blocks for a minute at every event": "Blocking"}


def measure(rounds: int) -> list[Row]:
    """A row for each way to fail."""
    job = partial(ours, "tests/bench/digits.yaml", *LONG)
    sides = {"without a tracker": job}
    for way, name in FAILING.items():
        sides[way] = partial(job, "--set", f"trackers=[tests.support.tracker_targets:{name}]")
    timings = take_turns(rounds, sides)
    return [
        row
        for way in FAILING
        for row in timing_rows(
            f"digits, a tracker that {way}, without", timings[way], timings["without a tracker"], BOUNDS
        )
    ]
