"""What answers at once: help, and an error in a spec."""

import sys
import tempfile
from functools import partial
from pathlib import Path

from tests.bench.compare import Row, take_turns
from tests.bench.process import REPOSITORY, run_side

BOUND_SECONDS = 0.5
WRONG_SPEC_EXIT_CODE = 2


def measure(rounds: int) -> list[Row]:
    """Two rows of seconds, without a peer."""
    with tempfile.TemporaryDirectory() as folder:
        wrong = Path(folder, "wrong.yaml")
        right = REPOSITORY / "tests" / "bench" / "digits.yaml"
        wrong.write_text(right.read_text().replace("batch_size", "batchsize"))
        sides = {
            "distrib --help": partial(seconds, 0, "--help"),
            "distrib run, a wrong spec": partial(seconds, WRONG_SPEC_EXIT_CODE, "run", str(wrong)),
        }
        measured = take_turns(rounds, sides)
    return [Row(f"{name}, s", tuple(times), bound=BOUND_SECONDS) for name, times in measured.items()]


def seconds(exit_code: int, *arguments: str) -> float:
    """Seconds that one command takes from start to end."""
    command = [sys.executable, "-m", "distrib", *arguments]
    finished = run_side("distrib", command, timeout_seconds=30, exit_code=exit_code)
    return finished.ended - finished.started
