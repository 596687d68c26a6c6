"""What a rank does when ranks agree, measured in CPU time; imports little, since many ranks import it at once."""

import resource
import time

import torch
import torch.distributed as dist

from distrib.train.process.rank_tree import RankTree

REPEATS = 20
NUM_VALUES = 14
"""Values of a rank's row in an exchange with two windows of train events."""
TENSORS = [("model.layer.weight", (512, 512), "float32", 1_048_576)] * 100
"""About what a rank's part of a checkpoint's plan looks like."""


def cpu_seconds_of(rank, world_size, operation, way):
    """The CPU seconds of one call on this rank."""
    if operation == "a process group":
        return _group_seconds()
    call = {"an exchange": _exchange, "the plan of a checkpoint": _plan_checkpoint}[operation](way)
    for _ in range(3):
        call()
    began = _cpu_seconds()
    for _ in range(REPEATS):
        call()
        time.sleep(0.001)
    return (_cpu_seconds() - began) / REPEATS


def _exchange(way):
    tree, row = RankTree(dist.group.WORLD), [1.0] * NUM_VALUES
    if way == "tree":
        return lambda: tree.sums(row)

    def gather():
        mine = torch.tensor(row, dtype=torch.float64)
        rows = [torch.empty_like(mine) for _ in range(tree.world_size)]
        dist.all_gather(rows, mine)
        _ = [each.tolist() for each in rows]

    return gather


def _plan_checkpoint(way):
    tree = RankTree(dist.group.WORLD)
    if way == "tree":
        return lambda: tree.combine_objects(TENSORS, lambda _: None)
    return lambda: dist.all_gather_object([None] * tree.world_size, TENSORS)


def _group_seconds():
    """Of a new process group and a first exchange in it."""
    began = _cpu_seconds()
    RankTree(dist.new_group(backend="gloo")).sums([1.0])
    return _cpu_seconds() - began


def _cpu_seconds():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
