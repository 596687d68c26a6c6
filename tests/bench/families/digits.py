"""A small job: its start, its steps and its whole process against torchrun and a hand-written loop."""

from functools import partial

from tests.bench.compare import Row, take_turns
from tests.bench.families.timings import timing_rows
from tests.bench.sides import ours, torchrun

BOUNDS = {
    "first_step_seconds": 0.70,
    "step_milliseconds": 0.80,
    "mean_step_milliseconds": 0.75,
    "process_seconds": 0.60,
}
SAVED_BOUNDS = {"mean_step_milliseconds": 0.75, "process_seconds": 0.60}
SAVED = ("--set", "checkpoint.every=20 epochs")
"""One checkpoint, at the end, which the peer does not save."""


def measure(rounds: int) -> list[Row]:
    """Four rows of a run without checkpoints, and two of one that saves at its end."""
    sides = {
        "distrib": partial(ours, "tests/bench/digits.yaml"),
        "distrib, saved": partial(ours, "tests/bench/digits.yaml", *SAVED),
        "torchrun": partial(torchrun, "digits_ddp.py"),
    }
    timings = take_turns(rounds, sides)
    return [
        *timing_rows("digits, torchrun", timings["distrib"], timings["torchrun"], BOUNDS),
        *timing_rows(
            "digits with a checkpoint, torchrun", timings["distrib, saved"], timings["torchrun"], SAVED_BOUNDS
        ),
    ]
