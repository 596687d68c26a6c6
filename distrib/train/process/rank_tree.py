"""The ranks of a group as a tree, through which each sends a little up and receives a little from above."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.distributed as dist

FAN_OUT = 4
"""Children of a rank: 1,024 ranks are 5 levels below rank 0, which receives 4 messages."""
_TAG = 1


class RankTree:
    """Gathers what every rank has on rank 0, and sends what rank 0 makes of it to all.

    In a ring, as gloo's all_gather is, each of W ranks takes part in W - 1 rounds and receives W values. Here only rank
    0 receives W values; the others send their subtree's values once and receive the answer once.

    Each rank's subtree is a range of ranks that begins with itself, so that ranks of a host, which are neighbors, are
    mostly in one subtree, and values arrive in the order of ranks.

    Args:
        group: A gloo group of all ranks, all of which make the same calls in the same order.
        fan_out: Children of a rank.
    """

    def __init__(self, group: dist.ProcessGroup, fan_out: int = FAN_OUT) -> None:
        self._group = group
        self.rank = dist.get_rank(group)
        self.world_size = dist.get_world_size(group)
        self._parent, self._size, self._subtrees = place(self.rank, self.world_size, fan_out)

    def combine(
        self, row: Sequence[float], answer_length: int, combine: Callable[[torch.Tensor], Sequence[float]]
    ) -> list[float]:
        """What `combine` makes of the rows of all ranks, the same bits on every rank.

        Args:
            row: This rank's values; equally many on all ranks.
            answer_length: How many values `combine` returns.
            combine: Called on rank 0 alone with a float64 tensor of shape (ranks, values), by rank.
        """
        rows = torch.empty(self._size, len(row), dtype=torch.float64)
        rows[0] = torch.tensor(row, dtype=torch.float64)
        arriving = [
            dist.irecv(rows[first - self.rank : end - self.rank], first, group=self._group, tag=_TAG)
            for first, end in self._subtrees
        ]
        _wait(arriving)
        if self._parent is None:
            answer = torch.tensor(combine(rows), dtype=torch.float64)
            assert len(answer) == answer_length
        else:
            dist.send(rows, self._parent, group=self._group, tag=_TAG)
            answer = torch.empty(answer_length, dtype=torch.float64)
            dist.recv(answer, self._parent, group=self._group, tag=_TAG)
        self._send_down(answer)
        return [float(value) for value in answer.tolist()]

    def sums(self, row: Sequence[float]) -> list[float]:
        """The sums over the ranks of each value, the same bits on every rank."""
        return self.combine(row, len(row), lambda rows: rows.sum(0).tolist())

    def gather_objects(self, value: Any) -> list[Any] | None:
        """The values of all ranks, by rank, on rank 0; None on the others. Values can be pickled."""
        messages = [pickle.dumps(value)]
        for first, _ in self._subtrees:
            messages += pickle.loads(self._receive(first))
        if self._parent is not None:
            self._send(pickle.dumps(messages), self._parent)
            return None
        return [pickle.loads(message) for message in messages]

    def combine_objects(self, value: Any, combine: Callable[[list[Any]], Any]) -> Any:
        """What `combine` makes on rank 0 of the values of all ranks, by rank; all ranks get it."""
        values = self.gather_objects(value)
        return self.broadcast_object(None if values is None else combine(values))

    def broadcast_object(self, value: Any) -> Any:
        """Rank 0's value, on all ranks."""
        message = pickle.dumps(value) if self._parent is None else self._receive(self._parent)
        for first, _ in self._subtrees:
            self._send(message, first)
        return value if self._parent is None else pickle.loads(message)

    def pass_object(self, value: Any, rank: int) -> Any:
        """Passes rank 0's value to `rank`, where it is returned; None on all others."""
        if rank != 0 and self.rank == 0:
            self._send(pickle.dumps(value), rank)
        if self.rank != rank:
            return None
        return value if rank == 0 else pickle.loads(self._receive(0))

    def _send_down(self, answer: torch.Tensor) -> None:
        _wait([dist.isend(answer, first, group=self._group, tag=_TAG) for first, _ in self._subtrees])

    def _send(self, message: bytes, rank: int) -> None:
        dist.send(torch.tensor([len(message)]), rank, group=self._group, tag=_TAG)
        dist.send(torch.frombuffer(bytearray(message), dtype=torch.uint8), rank, group=self._group, tag=_TAG)

    def _receive(self, rank: int) -> bytes:
        size = torch.empty(1, dtype=torch.int64)
        dist.recv(size, rank, group=self._group, tag=_TAG)
        message = torch.empty(int(size), dtype=torch.uint8)
        dist.recv(message, rank, group=self._group, tag=_TAG)
        return message.numpy().tobytes()


def place(rank: int, world_size: int, fan_out: int) -> tuple[int | None, int, list[tuple[int, int]]]:
    """A rank's place in the tree.

    Returns:
        Its parent (None for rank 0), the size of its subtree, and its children's subtrees as ranges [first, end), each
        of which begins with the child.
    """
    parent, first, end = None, 0, world_size
    while first != rank:
        parent = first
        first, end = next(part for part in _split(first + 1, end, fan_out) if part[0] <= rank < part[1])
    return parent, end - first, _split(first + 1, end, fan_out)


def _split(first: int, end: int, num_parts: int) -> list[tuple[int, int]]:
    """The range as at most `num_parts` ranges of nearly equal length, none of them empty."""
    num_parts = min(num_parts, end - first)
    bounds = [first + i * (end - first) // num_parts for i in range(num_parts + 1)] if num_parts else []
    return list(pairwise(bounds))


def _wait(works: Sequence[dist.Work | None]) -> None:
    for work in works:
        assert work is not None
        work.wait()
