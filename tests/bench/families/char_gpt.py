"""A model of long steps: what the launcher's own work adds to each, against a hand-written loop."""

from functools import partial
from statistics import median

from tests.bench.compare import Row, take_turns
from tests.bench.families.timings import timing_rows
from tests.bench.process import SideFailedError
from tests.bench.sides import ours, torchrun

BOUNDS = {"step_milliseconds": 1.02}
SHORTEST_MILLISECONDS = 100


def measure(rounds: int) -> list[Row]:
    """One row; a step of the peer must be long enough for the bound to mean something."""
    sides = {"distrib": partial(ours, "tests/bench/char_gpt.yaml"), "torchrun": partial(torchrun, "char_gpt_ddp.py")}
    timings = take_turns(rounds, sides)
    milliseconds = median(timing.step_milliseconds for timing in timings["torchrun"])
    if milliseconds < SHORTEST_MILLISECONDS:
        raise SideFailedError(f"a step took {milliseconds:.0f} ms: enlarge the model until it takes over 100")
    return timing_rows("GPT, torchrun", timings["distrib"], timings["torchrun"], BOUNDS)
