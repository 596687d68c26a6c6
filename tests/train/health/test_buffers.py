"""Buffers that each rank computes from its own samples are reported; what is harmless is not."""

import pytest
import torch
import torch.distributed as dist
from torch import nn

from distrib.train.health.buffers import compare_buffers
from distrib.train.process.rank_tree import RankTree
from tests.support.ranks import run_ranks

pytestmark = pytest.mark.timeout(100)


class Table(nn.Module):
    def __init__(self, table):
        super().__init__()
        self.register_buffer("table", table)


def compare(rank, world_size):
    torch.manual_seed(rank)
    norm = nn.BatchNorm1d(2)
    norm(torch.randn(8, 2))
    models = {
        "model": nn.ModuleDict({
            "norm": norm,
            "same": Table(torch.ones(3)),
            "grown": Table(torch.ones(rank + 1)),
            "count": Table(torch.tensor(rank)),
        })
    }  # fmt: skip
    harmless = compare_buffers(models, RankTree(dist.group.WORLD))
    models["model"].update({f"mean-{number}": Table(torch.randn(2)) for number in range(4)})
    return harmless, compare_buffers({**models, "loss": Table(torch.ones(2))}, RankTree(dist.group.WORLD))


def test_what_is_found_of_buffers():
    for harmless, (message,) in run_ranks(compare, 2):
        assert harmless == []
        assert message.startswith("each rank computes buffers from its own samples: model.mean-0.table, ")
        assert ", model.mean-2.table, 1 more; checkpoints and evaluations have rank 0's" in message
