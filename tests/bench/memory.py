"""Peak memory of a tree of processes, by proportional set size: a page that n processes share counts 1/n in each."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

SAMPLE_SECONDS = 0.1


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
