"""What a launcher provides to each rank: the small protocol between `launch` and `train`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from distrib.job.plan import Request
from distrib.job.reader import Job
from distrib.runs.layout import RunLayout
from distrib.runs.storage.open import working_folder

if TYPE_CHECKING:
    import torch.distributed


@dataclass(frozen=True)
class RankInfo:
    """Where a rank stands among the others.

    Attributes:
        rank: From 0.
        world_size: The number of ranks.
        local_rank: From 0 on each host.
        host_name: The name of the rank's host, for people.
        gpu: The index, among the GPUs that this process sees, of its own.
    """

    rank: int
    world_size: int
    local_rank: int
    host_name: str
    gpu: int = 0


@dataclass(frozen=True)
class Measurement:
    """What the ranks are to measure, where they are to measure their steps and not to train.

    Attributes:
        steps: How many steps to measure.
        warmup_steps: How many to run before.
        sweep_seconds: About how long to measure all-reduces.
    """

    steps: int
    warmup_steps: int
    sweep_seconds: float = 3.0


@dataclass(frozen=True)
class AttemptConfig:
    """What all ranks of an attempt have in common; travels to them by pickle or by fork.

    Attributes:
        job: What to train.
        request: What the launcher was asked for.
        run_location: The folder or the URL of the run.
        working_directory: Where the command was given.
        lease: The token of the launcher's hold on the run; without it no checkpoint is committed.
        attempt: From 0, over the run's whole life.
        record_samples: Whether each rank records the ids of its samples.
        measurement: What to measure instead of training, if anything.
    """

    job: Job
    request: Request
    run_location: str
    working_directory: Path
    lease: str = ""
    attempt: int = 0
    record_samples: bool = False
    measurement: Measurement | None = None

    @property
    def layout(self) -> RunLayout:
        """The run's files on this host."""
        return RunLayout(working_folder(self.run_location))

    @property
    def run_folder(self) -> Path:
        """The folder of the run's files on this host: the run's own, or a mirror of one on an object store."""
        return self.layout.folder


class RankContext(Protocol):
    """How a rank reaches the launcher that made it."""

    @property
    def place(self) -> RankInfo:
        """Where this rank stands."""

    def open_store(self, timeout: timedelta) -> torch.distributed.Store:
        """The key–value store at which the ranks of this attempt meet."""

    def stop_requested(self) -> bool:
        """Whether the run was asked to stop; cheap, asked a few times a second."""
