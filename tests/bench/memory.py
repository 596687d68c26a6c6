"""Memory of a tree of processes: the peak by proportional set size, where a page that n processes share counts 1/n in
each, and what descendants have for themselves over time."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

SAMPLE_SECONDS = 0.1
SERIES_SECONDS = 0.02
_OWN = ("RssAnon:", "RssShmem:")


@dataclass
class Peak:
    """The largest sums seen, in bytes: over the descendants of a process, and with the process itself."""

    children_bytes: int = 0
    all_bytes: int = 0


@contextlib.contextmanager
def peak_of(pid: int, peak: Peak) -> Iterator[None]:
    """Samples process `pid` and its descendants into `peak` while the block runs."""
    stop = threading.Event()

    def sample() -> None:
        while not stop.wait(SAMPLE_SECONDS):
            with contextlib.suppress(psutil.Error):
                children = sum(pss_bytes(child.pid) for child in psutil.Process(pid).children(recursive=True))
                peak.children_bytes = max(peak.children_bytes, children)
                peak.all_bytes = max(peak.all_bytes, children + pss_bytes(pid))

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def pss_bytes(pid: int) -> int:
    """The proportional set size of a process; 0 where it has just ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


@dataclass
class Series:
    """(Unix seconds, bytes) of the descendants of a process, over time."""

    points: list[tuple[float, int]] = field(default_factory=list)

    def peak_after(self, time: float) -> int:
        """The most bytes from a moment on."""
        return max(size for when, size in self.points if when >= time)


@contextlib.contextmanager
def anonymous_memory_of(pid: int, series: Series) -> Iterator[None]:
    """Samples the memory of the children of process `pid` that no file backs, quickly enough not to disturb them."""
    stop = threading.Event()

    def sample() -> None:
        while not stop.wait(SERIES_SECONDS):
            with contextlib.suppress(psutil.Error, OSError):
                children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
                series.points.append((time.time(), sum(map(anonymous_bytes, children))))

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def anonymous_bytes(pid: str) -> int:
    """The resident bytes of a process that no file backs; 0 where it has just ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(_OWN))
