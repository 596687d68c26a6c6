"""A small job against other libraries that start and train on several ranks, where they are installed."""

from functools import partial

from tests.bench.compare import Row, take_turns
from tests.bench.families.timings import timing_rows
from tests.bench.sides import ours, python, require, torchrun

BOUNDS = {"first_step_seconds": 1.00, "step_milliseconds": 1.00, "process_seconds": 1.00}


def measure(rounds: int) -> list[Row]:
    """Three rows for each library."""
    require("accelerate")
    require("lightning")
    sides = {
        "distrib": partial(ours, "tests/bench/digits.yaml"),
        "Accelerate": partial(torchrun, "digits_accelerate.py"),
        "Fabric": partial(python, "digits_fabric.py"),
    }
    timings = take_turns(rounds, sides)
    return [
        row
        for peer in ("Accelerate", "Fabric")
        for row in timing_rows(f"digits, {peer}", timings["distrib"], timings[peer], BOUNDS)
    ]
