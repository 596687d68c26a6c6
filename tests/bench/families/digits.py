"""A small job: its start, its steps and its whole process against torchrun and a hand-written loop."""

from functools import partial

from tests.bench.compare import Row, take_turns
from tests.bench.families.timings import timing_rows
from tests.bench.sides import ours, torchrun

BOUNDS = {"first_step_seconds": 0.70, "step_milliseconds": 0.80, "process_seconds": 0.75}


def measure(rounds: int) -> list[Row]:
    """Three rows of the same runs."""
    sides = {"distrib": partial(ours, "tests/bench/digits.yaml"), "torchrun": partial(torchrun, "digits_ddp.py")}
    timings = take_turns(rounds, sides)
    return timing_rows("digits, torchrun", timings["distrib"], timings["torchrun"], BOUNDS)
