"""The two kinds of side: a job for this launcher, and a peer's script; both report the same times."""

from __future__ import annotations

import importlib.util
import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distrib.runs.events import read_events
from tests.bench.peers.loop import TIMED_FROM_STEP
from tests.bench.process import Finished, SideFailedError, run_side

TIMEOUT_SECONDS = 180
Watch = Callable[[int], AbstractContextManager[object]]


class NotInstalledError(Exception):
    """A peer that is not installed here; its rows are skipped."""


@dataclass(frozen=True)
class Timing:
    """What one run took: a step from the end of the tenth to the end of the last, and from the end of the first."""

    first_step_seconds: float
    step_milliseconds: float
    mean_step_milliseconds: float
    process_seconds: float
    num_steps: int


@dataclass(frozen=True)
class Trained:
    """What a run of ours has left: all its events, and the bytes of tensors in its newest checkpoint."""

    finished: Finished
    events: list[dict[str, Any]]
    state_bytes: int

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        """The events of one kind."""
        return [event for event in self.events if event["event"] == kind]


def train(
    spec: str,
    *options: str,
    environment: Mapping[str, str] | None = None,
    watch: Watch = lambda pid: nullcontext(),
) -> Trained:
    """Trains `spec` by `distrib run`."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as runs:
        command = [sys.executable, "-m", "distrib", "run", spec, "--runs-dir", runs, "--run-id", "bench", *options]
        finished = run_side("distrib", command, timeout_seconds=TIMEOUT_SECONDS, environment=environment, watch=watch)
        run = Path(runs, "bench")
        newest = max((run / "checkpoints").glob("step-*"), default=run)
        size = sum(path.stat().st_size for path in newest.glob("*.distcp"))
        return Trained(finished, read_events(run / "metrics.jsonl"), size)


def ours(spec: str, *options: str, watch: Watch = lambda pid: nullcontext()) -> Timing:
    """Trains `spec` by `distrib run` and returns its times."""
    trained = train(spec, *options, watch=watch)
    return timing(trained.finished, trained.of_kind("train"))


def timing(finished: Finished, events: list[dict[str, Any]]) -> Timing:
    """The times in the train events of a run."""
    timed_from = next((event for event in events if event["step"] >= TIMED_FROM_STEP), None)
    if timed_from is None or events[0]["step"] != 1:
        raise SideFailedError(f"distrib left no events of step 1 and step {TIMED_FROM_STEP}: {events}")
    return _timing(finished, events[0]["time"], timed_from, events[-1])


def torchrun(script: str, *options: str, watch: Watch = lambda pid: nullcontext()) -> Timing:
    """Trains by a script of tests/bench/peers on two ranks started by torchrun."""
    finished, result = torchrun_result(script, *options, watch=watch)
    return peer_timing(finished, result)


def torchrun_result(
    script: str,
    *options: str,
    environment: Mapping[str, str] | None = None,
    watch: Watch = lambda pid: nullcontext(),
) -> tuple[Finished, dict[str, Any]]:
    """The same for a script that leaves a result of its own."""
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2", *options]
    return _peer(f"torchrun {script}", [*launcher, f"tests/bench/peers/{script}"], watch, environment)


def script(name: str, *options: str) -> Timing:
    """Trains by a script of tests/bench/peers, made for torchrun, that `distrib run` starts."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as runs:
        command = ["-m", "distrib", "run", f"tests/bench/peers/{name}", "--runs-dir", runs, *options]
        return peer_timing(*_peer(f"distrib {name}", command))


def python(script: str) -> Timing:
    """Trains by a script of tests/bench/peers that starts its ranks itself."""
    return peer_timing(*_peer(f"python {script}", [f"tests/bench/peers/{script}"]))


def require(package: str) -> None:
    """Raises NotInstalledError where `package` is missing."""
    if importlib.util.find_spec(package) is None:
        raise NotInstalledError(f"{package} is not installed")


def _peer(
    name: str,
    arguments: list[str],
    watch: Watch = lambda pid: nullcontext(),
    environment: Mapping[str, str] | None = None,
) -> tuple[Finished, dict[str, Any]]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:  # Ray's agents end a little later
        result_file = Path(folder, "result.json")
        finished = run_side(
            name,
            [sys.executable, *arguments],
            timeout_seconds=TIMEOUT_SECONDS,
            environment={**(environment or {}), "BENCH_RESULT": str(result_file), "RAY_TMPDIR": folder},
            watch=watch,
        )
        return finished, read_result(name, folder)


def read_result(name: str, folder: str) -> dict[str, Any]:
    """What a peer has left."""
    file = Path(folder, "result.json")
    if not file.exists():
        raise SideFailedError(f"{name} exited with 0 but left no result")
    result: dict[str, Any] = json.loads(file.read_text())
    return result


def peer_timing(finished: Finished, result: dict[str, Any]) -> Timing:
    timed_from = {"step": result["timed_from_step"], "time": result["timed_from_time"]}
    last = {"step": result["num_steps"], "time": result["last_step_time"]}
    return _timing(finished, result["first_step_time"], timed_from, last)


def _timing(finished: Finished, first_step: float, timed_from: dict[str, Any], last: dict[str, Any]) -> Timing:
    seconds_per_step = (last["time"] - timed_from["time"]) / (last["step"] - timed_from["step"])
    return Timing(
        first_step_seconds=first_step - finished.started,
        step_milliseconds=1e3 * seconds_per_step,
        mean_step_milliseconds=1e3 * (last["time"] - first_step) / (last["step"] - 1),
        process_seconds=finished.ended - finished.started,
        num_steps=last["step"],
    )
