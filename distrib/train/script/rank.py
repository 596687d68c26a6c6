"""A rank of a script as a rank of a training: started by distrib, or alone."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from distrib.job.plan import Request
from distrib.runs.storage.nowhere import NoStorage
from distrib.runs.storage.open import open_rank
from distrib.train.context import RankConfig, RankInfo
from distrib.train.health.times import RankTimes
from distrib.train.phases import RankProgress
from distrib.train.process.device import use_device
from distrib.train.process.process_groups import join_process_group
from distrib.train.rank import Rank
from distrib.train.script.current import ScriptRank, enter
from distrib.train.script.errors import UsageError
from distrib.train.settings import TrainingSettings

_WAIT_SECONDS = 300.0
_GRACE_SECONDS = 30.0


def join(script: ScriptRank | None, settings: TrainingSettings) -> Rank:
    """Connects this process with the other ranks, if the script has not done so.

    Args:
        script: The rank whose script this process runs; None outside of distrib.
        settings: Those of the training.

    Raises:
        UsageError: Another launcher has started several processes.
    """
    if script is None:
        return _alone(settings)
    config, info = script.config, script.rank_info
    settings = replace(settings, record_samples=config.record_samples)
    storage = open_rank(config.run_location, info.rank, config.attempt, config.lease)
    device = use_device(config.request, info.gpu, deterministic=settings.deterministic)
    group = join_process_group(script, config.request)
    script.await_stops()
    return Rank(config, settings, script, device, group, storage, RankTimes(device, info.world_size, script.progress))


def _alone(settings: TrainingSettings) -> Rank:
    """The only rank of a script that was not started by distrib."""
    world_size = os.environ.get("WORLD_SIZE", "1")
    if world_size != "1":
        raise UsageError(
            f"distrib.session: another launcher has started {world_size} processes (WORLD_SIZE); start the script with "
            f"`distrib run SCRIPT --workers {world_size}`"
        )
    is_cuda = torch.cuda.is_available()
    request = Request(
        launcher="local",
        min_workers=1,
        max_workers=1,
        device="cuda" if is_cuda else "cpu",
        backend="nccl" if is_cuda else "gloo",
        cpus_per_worker=torch.get_num_threads(),
        hang_timeout_seconds=_WAIT_SECONDS,
        grace_seconds=_GRACE_SECONDS,
    )
    config = RankConfig(request=request, run_location="", working_directory=Path.cwd())
    script = ScriptRank(config, _LoneContext(), dist.HashStore())
    enter(script)
    device = use_device(request, 0, deterministic=settings.deterministic)
    group = join_process_group(script, request)
    return Rank(config, settings, script, device, group, NoStorage(), RankTimes(device, 1, script.progress))


class _LoneContext:
    """There is no launcher: nothing requests a stop; see `RankContext`."""

    rank_info = RankInfo(0, 1, 0, os.uname().nodename)
    progress = RankProgress.private()

    def open_store(self, timeout: timedelta) -> dist.Store:
        """A store of this process alone."""
        return dist.HashStore()

    def stop_requested(self) -> bool:
        """Never."""
        return False
