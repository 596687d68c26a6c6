"""The process groups through which ranks communicate."""

from __future__ import annotations

import os
from datetime import timedelta

import torch
import torch.distributed as dist

from distrib.compat.pytorch.distributed import set_timeout
from distrib.job.plan import Request
from distrib.train.context import RankContext

LONG_SECONDS = 600.0
"""How long a rank may take to its first step, for a batch of an evaluation or for a checkpoint, while others wait."""
_MARGIN_SECONDS = 6.0
"""How much longer than the launcher's watch collectives wait: the launcher knows which ranks are late."""
_FULLY_CONNECTED_RANKS = 16
"""Up to so many ranks, each connects to all others when a group is made; beyond, only when two ranks communicate."""


def join_process_group(context: RankContext, request: Request) -> dist.ProcessGroup:
    """Joins the default process group, unless a script has done so, and returns another one, over gloo, for control.

    The first collective may wait for ranks that are still importing or loading; see `limit_waiting`.
    """
    timeout = long_timeout(request)
    rank_info = context.rank_info
    if rank_info.world_size > _FULLY_CONNECTED_RANKS:
        os.environ.setdefault("TORCH_GLOO_LAZY_INIT", "1")
    if not dist.is_initialized():
        dist.init_process_group(
            request.backend,
            store=context.open_store(timeout),
            rank=rank_info.rank,
            world_size=rank_info.world_size,
            timeout=timeout,
            device_id=torch.device("cuda", rank_info.gpu) if request.device == "cuda" else None,
        )
    group: dist.ProcessGroup = dist.new_group(backend="gloo", timeout=timeout)
    return group


def long_timeout(request: Request) -> timedelta:
    """How long ranks wait for each other before the first step, in evaluations and for checkpoints."""
    return timedelta(seconds=max(LONG_SECONDS, request.hang_timeout_seconds) + _MARGIN_SECONDS)


def limit_waiting(request: Request) -> None:
    """From now on a rank that waits for the others' gradients longer than `failures.hang_timeout` fails.

    The launcher's watch ends such a wait a little earlier. Control messages keep their time-out: ranks may take longer
    for their parts of an evaluation or a checkpoint.
    """
    if dist.group.WORLD is not None:
        set_timeout(dist.group.WORLD, timedelta(seconds=request.hang_timeout_seconds + _MARGIN_SECONDS))


def gather_rows(values: list[float], group: dist.ProcessGroup) -> list[list[float]]:
    """The `values` of every rank, by rank; all ranks pass equally many."""
    world_size = dist.get_world_size(group)
    if world_size == 1:
        return [values]
    mine = torch.tensor(values, dtype=torch.float64)
    rows = [torch.empty_like(mine) for _ in range(world_size)]
    dist.all_gather(rows, mine, group=group)
    return [row.tolist() for row in rows]
