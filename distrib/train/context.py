"""What a launcher gives to each rank: the small protocol between `launch` and `train`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

from distrib.job.plan import Request
from distrib.job.reader import Job
from distrib.runs.layout import RunLayout
from distrib.runs.storage.open import working_folder
from distrib.train.phases import RankProgress

if TYPE_CHECKING:
    import torch.distributed

    from distrib.train.resolved_job import Datasets
    from distrib.train.worker import RankResult


@dataclass(frozen=True)
class RankInfo:
    """A rank's numbers among the others and its host.

    Attributes:
        rank: From 0.
        world_size: The number of ranks.
        local_rank: From 0 on each host.
        host_name: The name of the rank's host, for display.
        gpu: The index of the rank's GPU among those that its process sees.
        local_world_size: The number of ranks on this host; None means all of them.
        node_rank: The number of this host among those with ranks.
        num_nodes: The number of hosts with ranks.
    """

    rank: int
    world_size: int
    local_rank: int
    host_name: str
    gpu: int = 0
    local_world_size: int | None = None
    node_rank: int = 0
    num_nodes: int = 1


@dataclass(frozen=True)
class Measurement:
    """What the ranks measure if they profile their steps instead of training.

    Attributes:
        steps: The number of measured steps.
        warmup_steps: The number of steps before them.
        sweep_seconds: How long to measure all-reduces, about.
    """

    steps: int
    warmup_steps: int
    sweep_seconds: float = 3.0


@dataclass(frozen=True, kw_only=True)
class RankConfig:
    """What all ranks of an attempt have in common, whatever they run; reaches them by pickle or by fork.

    Attributes:
        request: What was requested from the launcher.
        run_location: The folder or the URL of the run.
        working_directory: Where the command was given.
        lease: The token of the launcher's lease on the run; without it no checkpoint is committed.
        attempt: From 0, over the run's whole life.
        record_samples: Whether each rank records the ids of its samples.
    """

    request: Request
    run_location: str
    working_directory: Path
    lease: str = ""
    attempt: int = 0
    record_samples: bool = False

    @property
    def layout(self) -> RunLayout:
        """The run's files on this host."""
        return RunLayout(working_folder(self.run_location))

    @property
    def run_folder(self) -> Path:
        """The folder of the run's files on this host: the run's own, or a mirror of one on an object store."""
        return self.layout.folder


@dataclass(frozen=True, kw_only=True)
class AttemptConfig(RankConfig):
    """What all ranks of an attempt to train a job have in common.

    Attributes:
        job: What to train.
        measurement: What to measure instead of training, if anything.
        deadline: When the run is to stop, in Unix seconds, if `train.time_limit` is set.
    """

    job: Job
    measurement: Measurement | None = None
    deadline: float | None = None
    is_script: ClassVar[bool] = False

    def moved_to(self, folder: Path) -> AttemptConfig:
        """The same with another working directory, and the job's file in it."""
        path = folder / self.job.path.relative_to(self.working_directory)
        return replace(self, working_directory=folder, job=replace(self.job, path=path))

    def run_rank(self, context: RankContext, datasets: Datasets | None) -> RankResult:
        """Trains as one rank."""
        from distrib.train.worker import main

        return main(self, context, datasets)


class RankContext(Protocol):
    """How a rank reaches the launcher that started it."""

    @property
    def rank_info(self) -> RankInfo:
        """This rank's numbers."""

    def open_store(self, timeout: timedelta) -> torch.distributed.Store:
        """The key–value store through which the ranks of this attempt connect."""

    @property
    def progress(self) -> RankProgress:
        """Where this rank publishes the step and the phase that it is in; the same object at every call."""

    def stop_requested(self) -> bool:
        """Whether the run is to stop; cheap, called a few times a second."""
