"""The ranks as one: process groups, DistributedDataParallel and buffers."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from distrib.compat.torch_distributed import set_timeout
from distrib.job.plan import Request, StepPlan, split_evenly
from distrib.job.spec import Ddp
from distrib.train.context import RankContext

if TYPE_CHECKING:
    from distrib.train.strategy.compression import PowerSgd

_START_TIMEOUT_SECONDS = 600.0


def join_process_group(host: RankContext, request: Request) -> dist.ProcessGroup:
    """Joins the default process group and returns a gloo group of its own for control.

    The first collective may wait for ranks that still import or load; from then on a wait of `hang_timeout` fails.
    """
    timeout = timedelta(seconds=max(_START_TIMEOUT_SECONDS, request.hang_timeout_seconds))
    place = host.place
    dist.init_process_group(
        request.backend,
        store=host.open_store(timeout),
        rank=place.rank,
        world_size=place.world_size,
        timeout=timeout,
        device_id=torch.device("cuda", place.gpu) if request.device == "cuda" else None,
    )
    group: dist.ProcessGroup = dist.new_group(backend="gloo", timeout=timeout)
    return group


def limit_waiting(request: Request, control: dist.ProcessGroup) -> None:
    """From the first step on, a rank that waits for the others longer than `hang_timeout` fails."""
    timeout = timedelta(seconds=request.hang_timeout_seconds)
    for group in (dist.group.WORLD, control):
        if group is not None:
            set_timeout(group, timeout)


def wrap(model: nn.Module, settings: Ddp, device: torch.device, compression: PowerSgd | None = None) -> nn.Module:
    """`model` in DistributedDataParallel; a single rank, which has nothing to synchronise, runs the model itself."""
    if dist.get_world_size() == 1:
        return model
    wrapped = DistributedDataParallel(
        model,
        device_ids=[device.index] if device.type == "cuda" else None,
        forward_sync_buffers=False,
        bucket_cap_mb=settings.bucket_mb,
        find_unused_parameters=settings.find_unused_parameters,
        gradient_as_bucket_view=True,
    )
    if compression is not None:
        compression.register(wrapped)
    elif settings.compress != "none":
        from torch.distributed.algorithms.ddp_comm_hooks import default_hooks

        hooks = {"fp16": default_hooks.fp16_compress_hook, "bf16": default_hooks.bf16_compress_hook}
        wrapped.register_comm_hook(None, hooks[settings.compress])
    return wrapped


def without_sync(model: nn.Module) -> AbstractContextManager[None]:
    """The context of a forward and backward pass whose gradients are only accumulated."""
    return model.no_sync() if isinstance(model, DistributedDataParallel) else nullcontext()


def broadcast_buffers(model: nn.Module) -> None:
    """Gives every rank the buffers of rank 0, to whom they belong."""
    if dist.get_world_size() > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)


def find_batch_norms(model: nn.Module) -> list[nn.Module]:
    """The layers that normalise by the statistics of the rank's own samples."""
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    return [part for part in model.modules() if isinstance(part, kinds)]


def batch_norm_warning(model: nn.Module, schedule: StepPlan) -> str | None:
    """What to say where BatchNorm meets a slice too small for statistics, or None."""
    sizes = [*schedule.rank_batches, *schedule.last_rank_batches]
    smallest = min(
        part for size in sizes if size for part in split_evenly(size, schedule.accumulate) if part
    )  # fmt: skip
    if smallest > 1 or not find_batch_norms(model):
        return None
    return (
        "the model has BatchNorm, and some rank computes its statistics from a single sample: torch refuses that where "
        "the normalised input has no other dimensions; take a larger batch_size, fewer workers or less accumulation"
    )


def use_threads(count: int) -> None:
    """Sets the torch threads of this process; to be called before its first parallel computation."""
    os.environ["OMP_NUM_THREADS"] = str(count)
    torch.set_num_threads(count)
