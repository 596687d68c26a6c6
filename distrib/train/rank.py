"""One rank of an attempt: what it knows before it builds anything."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist

from distrib.runs.layout import RunLayout
from distrib.runs.storage.errors import NotKeptError, storage_problem
from distrib.runs.storage.protocols import RankStorage
from distrib.train.context import RankConfig, RankContext, RankInfo
from distrib.train.health.times import RankTimes
from distrib.train.phases import RankProgress
from distrib.train.process.device import use_device, use_threads
from distrib.train.process.process_groups import join_process_group
from distrib.train.settings import TrainingSettings


@dataclass(frozen=True)
class Rank:
    """This process as one of the ranks of an attempt.

    Attributes:
        config: What all ranks have in common.
        settings: Those of the training.
        context: The launcher.
        device: The rank's device.
        control_group: A gloo group of all ranks.
        storage: Where the run is kept.
        times: Measures how long the rank computes and how long it waits for the others.
    """

    config: RankConfig
    settings: TrainingSettings
    context: RankContext
    device: torch.device
    control_group: dist.ProcessGroup
    storage: RankStorage
    times: RankTimes

    @classmethod
    def join(cls, config: RankConfig, settings: TrainingSettings, context: RankContext, storage: RankStorage) -> Rank:
        """Sets up the process and connects it with the other ranks."""
        use_threads(config.request.cpus_per_worker)
        device = use_device(config.request, context.rank_info.gpu, deterministic=settings.deterministic)
        group = join_process_group(context, config.request)
        times = RankTimes(device, context.rank_info.world_size, context.progress)
        return cls(config, settings, context, device, group, storage, times)

    @property
    def info(self) -> RankInfo:
        """The rank's numbers."""
        return self.context.rank_info

    @property
    def progress(self) -> RankProgress:
        """Where it publishes what it does."""
        return self.context.progress

    @property
    def is_first(self) -> bool:
        """Whether it is rank 0, which writes what is written once."""
        return self.info.rank == 0

    @property
    def layout(self) -> RunLayout:
        """The files of the run on this host."""
        return self.storage.layout


def not_kept(what: str, error: BaseException, file: Path) -> NotKeptError:
    """The error for something that could not be written to `file`."""
    return NotKeptError(f"{what}: {storage_problem(error, str(file)) or error}")
