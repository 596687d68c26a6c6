"""A rank is killed: how long until training goes on, against torchrun and a hand-written resume."""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.bench.compare import Row, take_turns
from tests.bench.process import SideFailedError
from tests.bench.sides import torchrun_result, train
from tests.bench.workloads import KILLED_FILE

BOUND = 0.50
EnvironmentSide = Callable[[dict[str, str]], float]


def measure(rounds: int) -> list[Row]:
    """One row."""
    sides = {"distrib": partial(seconds_lost, ours), "torchrun": partial(seconds_lost, peer)}
    lost = take_turns(rounds, sides)
    what = "digits, torchrun --max-restarts: SIGKILL of a rank to the end of the next step, s"
    return [Row(what, tuple(lost["distrib"]), tuple(lost["torchrun"]), BOUND)]


def seconds_lost(next_step: EnvironmentSide) -> float:
    """Seconds from the kill to the end of the next optimizer step."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        file = Path(folder, "killed")
        time = next_step({KILLED_FILE: str(file)})
        if not file.exists():
            raise SideFailedError("no rank was killed")
        return time - float(file.read_text())


def ours(environment: dict[str, str]) -> float:
    """When the first step after the kill ended."""
    trained = train("tests/bench/digits_killed.yaml", environment=environment)
    start = trained.of_kind("start")[-1]
    if (start["attempt"], start["step"] > 0) != (1, True):
        raise SideFailedError(f"distrib did not go on from a checkpoint: {start}")
    return float(next(event["time"] for event in trained.of_kind("train") if event["attempt"] == 1))


def peer(environment: dict[str, str]) -> float:
    """The same of torchrun."""
    _, result = torchrun_result("digits_killed.py", "--max-restarts", "10", environment=environment)
    if result["first_epoch"] == 0:
        raise SideFailedError("the peer did not go on from a checkpoint")
    return float(result["first_step_time"])
