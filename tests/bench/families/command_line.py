"""What answers at once: help, and an error in a spec, against a Python program with the same libraries."""

import sys
import tempfile
from functools import partial
from pathlib import Path

from tests.bench.compare import Row, take_turns
from tests.bench.process import REPOSITORY, run_side

BOUND = 2.0
HELP_IMPORTS = "import typer, rich"
SPEC_IMPORTS = "import typer, rich, pydantic, yaml, distrib.job.spec.job"
WRONG_SPEC_EXIT_CODE = 2


def measure(rounds: int) -> list[Row]:
    """Two rows."""
    with tempfile.TemporaryDirectory() as folder:
        wrong = Path(folder, "wrong.yaml")
        right = REPOSITORY / "tests" / "bench" / "digits.yaml"
        wrong.write_text(right.read_text().replace("batch_size", "batchsize"))
        sides = {
            "distrib --help": partial(seconds, 0, "-m", "distrib", "--help"),
            "the imports of help": partial(seconds, 0, "-c", HELP_IMPORTS),
            "distrib run, a wrong spec": partial(seconds, WRONG_SPEC_EXIT_CODE, "-m", "distrib", "run", str(wrong)),
            "the imports of a spec": partial(seconds, 0, "-c", SPEC_IMPORTS),
        }
        measured = {name: tuple(times) for name, times in take_turns(rounds, sides).items()}
    pairs = [("distrib --help", "the imports of help"), ("distrib run, a wrong spec", "the imports of a spec")]
    return [Row(f"{ours}, s, against {peer}", measured[ours], measured[peer], BOUND) for ours, peer in pairs]


def seconds(exit_code: int, *arguments: str) -> float:
    """Seconds that one Python program takes from start to end."""
    finished = run_side("python", [sys.executable, *arguments], timeout_seconds=30, exit_code=exit_code)
    return finished.ended - finished.started
