"""What the caller of `run` can choose besides the job itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from distrib.job.launcher_names import LauncherName

if TYPE_CHECKING:
    from distrib.train.context import Measurement


@dataclass(frozen=True)
class RunOptions:
    """How a job is run.

    Attributes:
        launcher: The name of the launcher, such as `local` for processes on this machine.
        address: The cluster to connect to: its head's HOST:PORT, or `auto`; None uses this machine.
        run_id: The run's id; by default the job's name, the time and four random characters. A run that exists and is
            not finished continues from its newest checkpoint.
        fresh: Start a new run beside one that exists, as ID-2.
        extend: Continue a finished run, up to the epochs or steps that the job asks for now.
        record_samples: Whether each rank records the ids of its samples.
        started: Unix seconds from which the run's times count; by default now.
        measurement: What the ranks measure instead of training.
    """

    launcher: LauncherName = "local"
    address: str | None = None
    run_id: str | None = None
    fresh: bool = False
    extend: bool = False
    record_samples: bool = False
    started: float | None = None
    measurement: Measurement | None = None
