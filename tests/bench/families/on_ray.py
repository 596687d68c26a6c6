"""A small job on a Ray of its own on this machine, against bare Ray Train."""

from functools import partial

from tests.bench.compare import Row, take_turns
from tests.bench.families.timings import timing_rows
from tests.bench.sides import ours, python

BOUNDS = {"first_step_seconds": 1.00, "process_seconds": 0.90}


def measure(rounds: int) -> list[Row]:
    """Two rows of the same runs."""
    sides = {
        "distrib": partial(ours, "tests/bench/digits.yaml", "--on", "ray"),
        "Ray Train": partial(python, "digits_ray_train.py"),
    }
    timings = take_turns(rounds, sides)
    return timing_rows("digits, Ray Train", timings["distrib"], timings["Ray Train"], BOUNDS)
