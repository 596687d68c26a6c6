"""Peak memory of a small job's ranks against those of torchrun."""

from collections.abc import Callable
from functools import partial

from tests.bench.compare import Row, take_turns
from tests.bench.memory import Peak, peak_of
from tests.bench.sides import Timing, Watch, ours, torchrun

MEBIBYTE = 1 << 20


def measure(rounds: int) -> list[Row]:
    """The ranks, and for information the ranks and their launcher."""
    sides = {
        "distrib": partial(peak_during, lambda watch: ours("tests/bench/digits.yaml", watch=watch)),
        "torchrun": partial(peak_during, lambda watch: torchrun("digits_ddp.py", watch=watch)),
    }
    peaks = take_turns(rounds, sides)
    return [
        row("ranks, MiB", peaks, lambda peak: peak.children_bytes, bound=1.00),
        row("ranks and launcher, MiB", peaks, lambda peak: peak.all_bytes, bound=None),
    ]


def peak_during(train: Callable[[Watch], Timing]) -> Peak:
    """Trains and returns the peak."""
    peak = Peak()
    train(lambda pid: peak_of(pid, peak))
    return peak


def row(what: str, peaks: dict[str, list[Peak]], size: Callable[[Peak], int], bound: float | None) -> Row:
    """One row of peaks in MiB."""
    ours_mebibytes, peer_mebibytes = (
        tuple(size(peak) / MEBIBYTE for peak in peaks[side]) for side in ("distrib", "torchrun")
    )
    return Row(f"digits, torchrun: peak memory of {what}", ours_mebibytes, peer_mebibytes, bound)
