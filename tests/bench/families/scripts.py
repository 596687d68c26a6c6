"""Scripts: the same one started by distrib and by torchrun, and a session's steps against a hand-written loop."""

from functools import partial

from tests.bench.compare import Row, take_turns
from tests.bench.families.timings import timing_rows
from tests.bench.sides import ours, script, torchrun

LAUNCH_BOUNDS = {"first_step_seconds": 0.70}
STEP_BOUNDS = {"step_milliseconds": 1.02}
OPTIONS = ("--workers", "2", "--device", "cpu")


def measure(rounds: int) -> list[Row]:
    """Two rows."""
    launches = take_turns(
        rounds, {"distrib": partial(script, "digits_ddp.py", *OPTIONS), "torchrun": partial(torchrun, "digits_ddp.py")}
    )
    steps = take_turns(
        rounds,
        {
            "distrib": partial(ours, "tests/bench/char_gpt_session.py", *OPTIONS),
            "torchrun": partial(torchrun, "char_gpt_ddp.py"),
        },
    )
    return [
        *timing_rows("script of digits, torchrun", launches["distrib"], launches["torchrun"], LAUNCH_BOUNDS),
        *timing_rows("GPT with a session, torchrun", steps["distrib"], steps["torchrun"], STEP_BOUNDS),
    ]
