"""Two hosts of a lab: a job on their Ray cluster, against bare Ray Train on the same."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from cluster.lab import Lab, LabError
from distrib.runs.events import read_events
from tests.bench.compare import Row, take_turns
from tests.bench.families.timings import timing_rows
from tests.bench.in_lab import a_lab, on_head
from tests.bench.process import Finished, SideFailedError
from tests.bench.sides import Timing, peer_timing, read_result, timing
from tests.bench.workloads import KILLED_FILE

DIGITS_BOUNDS = {"first_step_seconds": 1.00, "step_milliseconds": 0.80, "process_seconds": 0.90}
GPT_BOUNDS = {"step_milliseconds": 1.02}
KILLED_BOUND = 1.00
PEER_TIMEOUT_SECONDS = 400
"""Ray Train takes two seconds for every report once it has restarted its workers."""
SPREAD = ("--workers", "2", "--device", "cpu", "--set", "resources.placement=strict_spread")


def measure(rounds: int) -> list[Row]:
    """Five rows, or one that says why there is no lab; a side that fails takes none of the other rows along."""
    rows: list[Row] = []
    try:
        # Names that resolve to addresses, without which bare Ray Train cannot connect its ranks.
        with a_lab(2, cpus=2, names="address") as lab:
            for part in (launches, steps, killed):
                try:
                    rows += part(lab, rounds)
                except SideFailedError as error:
                    rows.append(Row(f"cluster: {part.__name__}", problem=str(error)))
    except LabError as error:
        rows.append(Row("cluster", problem=str(error), skipped=True))
    return rows


def launches(lab: Lab, rounds: int) -> list[Row]:
    """From the command to the first step, a step, and to the end."""
    sides = {
        "distrib": partial(ours, lab, "tests/bench/digits.yaml"),
        "Ray Train": partial(peer, lab, "digits_ray_cluster.py"),
    }
    timings = take_turns(rounds, sides)
    return timing_rows("digits, two hosts, Ray Train", timings["distrib"], timings["Ray Train"], DIGITS_BOUNDS)


def steps(lab: Lab, rounds: int) -> list[Row]:
    """A step of a model that computes for long."""
    sides = {
        "distrib": partial(ours, lab, "tests/bench/char_gpt.yaml"),
        "Ray Train": partial(peer, lab, "char_gpt_ray_cluster.py"),
    }
    timings = take_turns(rounds, sides)
    return timing_rows("GPT, two hosts, Ray Train", timings["distrib"], timings["Ray Train"], GPT_BOUNDS)


def killed(lab: Lab, rounds: int) -> list[Row]:
    """From the SIGKILL of a worker to the end of the next step."""
    sides = {
        "distrib": partial(seconds_lost, partial(ours_after_kill, lab)),
        "Ray Train": partial(seconds_lost, partial(peer_after_kill, lab)),
    }
    lost = take_turns(rounds, sides)
    what = "digits, two hosts, Ray Train: SIGKILL of a worker to the end of the next step, s"
    return [Row(what, tuple(lost["distrib"]), tuple(lost["Ray Train"]), KILLED_BOUND)]


def seconds_lost(next_step: Callable[[Path], float]) -> float:
    """Seconds from the kill to the end of the next optimizer step."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        file = Path(folder, "killed")
        time = next_step(file)
        if not file.exists():
            raise SideFailedError("no worker was killed")
        return time - float(file.read_text())


def ours(lab: Lab, spec: str) -> Timing:
    """Trains `spec` by `distrib run` on the head."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as runs:
        finished = run_ours(lab, spec, runs, {})
        events = read_events(Path(runs, "bench", "metrics.jsonl"))
        return timing(finished, [event for event in events if event["event"] == "train"])


def run_ours(lab: Lab, spec: str, runs: str, environment: dict[str, str]) -> Finished:
    """Runs the command to its end."""
    command = [sys.executable, "-m", "distrib", "run", spec, "--runs-dir", runs, "--run-id", "bench", *SPREAD]
    return on_head(lab, "distrib", command, environment)


def run_peer(lab: Lab, script: str, folder: str, environment: dict[str, str]) -> Finished:
    """Runs a script of tests/bench/peers on the head."""
    variables = {**environment, "BENCH_RESULT": str(Path(folder, "result.json")), "BENCH_STORAGE": folder}
    command = [sys.executable, f"tests/bench/peers/{script}"]
    return on_head(lab, script, command, variables, timeout_seconds=PEER_TIMEOUT_SECONDS)


def peer(lab: Lab, script: str) -> Timing:
    """Trains by a script of tests/bench/peers."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        finished = run_peer(lab, script, folder, {})
        return peer_timing(finished, read_result(script, folder))


def ours_after_kill(lab: Lab, file: Path) -> float:
    """When the first step after the kill ended."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as runs:
        run_ours(lab, "tests/bench/digits_killed.yaml", runs, {KILLED_FILE: str(file)})
        events = read_events(Path(runs, "bench", "metrics.jsonl"))
        again = [event for event in events if event["event"] == "train" and event["attempt"] == 1]
        if not again or again[0]["step"] == 1:
            raise SideFailedError("distrib did not go on from a checkpoint")
        return float(again[0]["time"])


def peer_after_kill(lab: Lab, file: Path) -> float:
    """The same of bare Ray Train."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        run_peer(lab, "digits_ray_killed.py", folder, {KILLED_FILE: str(file)})
        result = read_result("digits_ray_killed.py", folder)
        if result["first_epoch"] == 0:
            raise SideFailedError("the peer did not go on from a checkpoint")
        return float(result["first_step_time"])
