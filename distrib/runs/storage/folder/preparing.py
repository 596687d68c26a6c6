"""The note that a launcher prepares to continue a run, whose record says for some seconds more that it has ended."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from distrib.runs.files.atomic import atomic_write
from distrib.runs.layout import RunLayout
from distrib.runs.owner import is_dead, is_of_this_machine, this_process


@contextlib.contextmanager
def preparation_noted(folder: Path) -> Iterator[None]:
    """Notes in the folder of a run that exists that this process is about to continue it; does not hold the run."""
    layout = RunLayout(folder)
    if not layout.record_file.exists():
        yield
        return
    with contextlib.suppress(OSError):  # whether it may be written is checked when the run is acquired
        atomic_write(layout.launcher_file, json.dumps(this_process()))
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            layout.launcher_file.unlink(missing_ok=True)


def is_being_prepared(folder: Path) -> bool:
    """Whether a living process of this machine has noted that it is about to continue the run."""
    try:
        launcher = json.loads(RunLayout(folder).launcher_file.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(launcher, dict) and is_of_this_machine(launcher) and not is_dead(launcher)
