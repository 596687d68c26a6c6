"""Buffers that each rank computes from its own samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import nn

from distrib.errors import listed
from distrib.train.health.replicas import checksum
from distrib.train.objective.batch_norm import find_batch_norms
from distrib.train.process.rank_tree import RankTree

Sums = dict[str, tuple[int, int]]


def compare_buffers(models: Mapping[str, nn.Module], tree: RankTree) -> list[str]:
    """Looks for buffers that differ between the ranks after a step; all ranks call it together.

    Those of BatchNorm are left out, whose statistics are known to be those of rank 0's samples, and so are tables that
    have grown to different sizes, and whatever is no floating-point number.

    Returns:
        What is to be reported.
    """
    mine: Sums = {}
    with torch.no_grad():
        for name, buffer in _buffers(models):
            first, second = checksum(buffer)
            mine[f"{name} {tuple(buffer.shape)}"] = int(first), int(second)
    names: list[str] = tree.combine_objects(mine, _different)
    if not names:
        return []
    shown = listed([name.partition(" ")[0] for name in names])
    return [
        f"each rank computes buffers from its own samples: {shown}; checkpoints and evaluations have rank 0's, so "
        "results depend on the number of workers. Sum them over the ranks where they are computed, as with "
        "torch.distributed.all_reduce, if they matter"
    ]


def _buffers(models: Mapping[str, nn.Module]) -> Iterator[tuple[str, torch.Tensor]]:
    for model_name, model in models.items():
        known = set(map(id, find_batch_norms(model)))
        for path, part in model.named_modules():
            for name, buffer in part.named_buffers(recurse=False):
                if id(part) not in known and buffer.is_floating_point() and buffer.layout == torch.strided:
                    yield ".".join(filter(None, (model_name, path, name))), buffer.detach()


def _different(ranks: list[Sums]) -> list[str]:
    return [name for name, value in ranks[0].items() if any(sums.get(name, value) != value for sums in ranks)]
