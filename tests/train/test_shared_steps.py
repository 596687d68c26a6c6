"""Ranks see what the others announced before a collective, without another one."""

import pytest
import torch
import torch.distributed as dist

from distrib.train.process import shared_steps
from tests.support.ranks import run_ranks

pytestmark = [pytest.mark.usefixtures("rank_server"), pytest.mark.timeout(60)]


def announce(rank, world_size):
    steps = shared_steps.share_steps(dist.group.WORLD)
    seen = []
    for step in range(1, 4):
        if rank == step % world_size:
            steps.announce(step)
        dist.all_reduce(torch.ones(1))
        seen.append([steps.is_announced(number) for number in (step, step + 1)])
        dist.barrier()
    return seen


def share_on_hosts(rank, world_size):
    shared_steps._boot_id = lambda: str(rank)
    return shared_steps.share_steps(dist.group.WORLD) is None


def test_what_one_rank_announces_all_see():
    assert run_ranks(announce, 3) == [[[True, False]] * 3] * 3


def test_ranks_of_several_hosts_share_nothing():
    assert run_ranks(share_on_hosts, 2) == [True, True]
