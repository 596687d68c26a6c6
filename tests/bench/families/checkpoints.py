"""Checkpoints of a gigabyte: how long training waits for one, and what it costs in memory and speed."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median

from tests.bench.compare import Row, take_turns
from tests.bench.memory import Series, anonymous_memory_of
from tests.bench.sides import Trained, torchrun_result, train

MEBIBYTE = 1 << 20
INTERVAL_SECONDS = 10.0
TIMED_FROM_STEP = 25
"""Some steps after the first checkpoint, which is at step 20."""
BOUNDS = {"stall": 0.10, "first stall": 2.0, "memory": 1.3, "1 GB": 1.10, "50 MB": 1.02}
NEVER = ("--set", "checkpoint.every=never")


@dataclass(frozen=True)
class Side:
    """One run of ours, and the memory of its ranks over time."""

    trained: Trained
    memory: Series

    @property
    def step_milliseconds(self) -> float:
        """A step once the first checkpoint is over, which loads what is kept for the others."""
        first, *_, last = [event for event in self.trained.of_kind("train") if event["step"] >= TIMED_FROM_STEP]
        return 1e3 * (last["time"] - first["time"]) / (last["step"] - first["step"])

    @property
    def num_timed_saves(self) -> int:
        """The checkpoints that were begun in those steps; that of the last step comes after them."""
        steps = [event["step"] for event in self.trained.of_kind("checkpoint")]
        return sum(step >= TIMED_FROM_STEP for step in steps[:-1])

    @property
    def stalls(self) -> list[float]:
        """For how many seconds training stood still, save by save."""
        return [event["wait_seconds"] + event["stall_seconds"] for event in self.trained.of_kind("checkpoint")]

    @property
    def peak_bytes(self) -> int:
        """The most memory that its ranks had together since the first step."""
        return self.memory.peak_after(self.trained.of_kind("train")[0]["time"])


def measure(rounds: int) -> list[Row]:
    """Five rows of the same runs."""
    gigabyte, small = "tests/bench/char_gpt_saved.yaml", ("--set", "model.args.megabytes=0")
    sides: dict[str, Callable[[], Side | list[float]]] = {
        "1 GB": partial(observe, gigabyte),
        "1 GB, never": partial(observe, gigabyte, *NEVER),
        "50 MB": partial(observe, gigabyte, *small),
        "50 MB, never": partial(observe, gigabyte, *small, *NEVER),
        "torch.save": lambda: torchrun_result("char_gpt_saved.py")[1]["stalls"],
    }
    measured = take_turns(rounds, sides)
    saved, never = measured["1 GB"], measured["1 GB, never"]
    extra = [one.peak_bytes - other.peak_bytes for one, other in zip(saved, never, strict=True)]
    return [
        Row(
            "1 GB, torch.save of rank 0 and a barrier: stall of a checkpoint, s",
            tuple(median(side.stalls) for side in saved),
            tuple(map(median, measured["torch.save"])),
            BOUNDS["stall"],
        ),
        Row(
            "1 GB: stall of the first checkpoint, s, against the others'",
            tuple(side.stalls[0] for side in saved),
            tuple(median(side.stalls[1:]) for side in saved),
            BOUNDS["first stall"],
        ),
        Row(
            "1 GB: memory of the ranks for saving, MiB, against the state",
            tuple(size / MEBIBYTE for size in extra),
            tuple(side.trained.state_bytes / MEBIBYTE for side in saved),
            BOUNDS["memory"],
        ),
        *(throughput_row(size, measured[size], measured[f"{size}, never"]) for size in ("1 GB", "50 MB")),
    ]


def observe(spec: str, *options: str) -> Side:
    """Trains, and watches the memory of the ranks."""
    memory = Series()
    return Side(train(spec, *options, watch=lambda pid: anonymous_memory_of(pid, memory)), memory)


def throughput_row(size: str, saved: list[Side], never: list[Side]) -> Row:
    """A step's milliseconds if checkpoints were `INTERVAL_SECONDS` apart, from runs in which they are closer."""
    milliseconds = [
        other.step_milliseconds * (1 + seconds_per_save(one, other) / INTERVAL_SECONDS)
        for one, other in zip(saved, never, strict=True)
    ]
    return Row(
        f"{size}: a step with a checkpoint every {INTERVAL_SECONDS:g} s, ms, against none",
        tuple(milliseconds),
        tuple(side.step_milliseconds for side in never),
        BOUNDS[size],
    )


def seconds_per_save(saved: Side, never: Side) -> float:
    """What a checkpoint adds to the whole."""
    num_steps = saved.trained.of_kind("train")[-1]["step"] - TIMED_FROM_STEP
    return num_steps * (saved.step_milliseconds - never.step_milliseconds) / 1e3 / saved.num_timed_saves
