"""What runs on the hosts to test the links between them: ports, and all-reduces between pairs."""

from __future__ import annotations

import contextlib
import os
import socket
import statistics
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from distrib.launch.network import answers, listen_on, use_interface_of

_ANSWER_SECONDS = 3.0
_GROUP_SECONDS = 30
_SMALL_REPEATS, _LARGE_REPEATS = 10, 3
_LARGE_BYTES = 4 * 2**20
_listeners: dict[str, socket.socket] = {}


@dataclass(frozen=True)
class LinkSpeed:
    """An all-reduce between two hosts.

    Attributes:
        hosts: Their positions in the fleet.
        latency_seconds: Of an all-reduce of 8 bytes, the median.
        bytes_per_second: Bytes that each host sends per second in an all-reduce of 4 MiB, the median.
    """

    hosts: tuple[int, int]
    latency_seconds: float
    bytes_per_second: float


def open_port(address: str) -> int:
    """Listens at a free port of `address` from now on; returns the port."""
    with contextlib.suppress(KeyError):
        _listeners.pop(address).close()
    _listeners[address] = listen_on(address)
    return int(_listeners[address].getsockname()[1])


def reach(targets: dict[str, tuple[str, int]]) -> list[str]:
    """The names among `targets`, each with its address and port, to which this host cannot connect."""
    return [name for name, (address, port) in targets.items() if not answers(address, port, _ANSWER_SECONDS)]


def pair_rounds(num_hosts: int) -> list[list[tuple[int, int]]]:
    """All pairs of hosts in rounds in which no host occurs twice (the circle method for tournaments)."""
    players: list[int | None] = [*range(num_hosts), *([None] if num_hosts % 2 else [])]
    rounds = []
    for _ in range(len(players) - 1):
        half = len(players) // 2
        pairs = zip(players[:half], reversed(players[half:]), strict=True)
        rounds.append([(min(a, b), max(a, b)) for a, b in pairs if a is not None and b is not None])
        players = [players[0], players[-1], *players[1:-1]]
    return rounds


def measure_links(rank: int, num_hosts: int, own: str, head: str, port: int, backend: str) -> list[LinkSpeed]:
    """Joins the group of all hosts and measures all-reduces with each of the others in turn.

    Args:
        rank: This host's position in the fleet.
        num_hosts: The number of hosts.
        own: This host's address.
        head: The address of host 0, which listens at `port` since `open_port`.
        port: Where host 0 listens.
        backend: `gloo` or `nccl`.

    Returns:
        The links that this host measured, each pair once over all hosts.
    """
    import torch
    import torch.distributed as dist

    use_interface_of(own)
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    timeout = timedelta(seconds=_GROUP_SECONDS)
    listener = _listeners.pop(head).detach() if rank == 0 else None
    store = dist.TCPStore(
        head, port, num_hosts, is_master=rank == 0, timeout=timeout, wait_for_workers=False, master_listen_fd=listener
    )
    dist.init_process_group(backend, store=store, rank=rank, world_size=num_hosts, timeout=timeout)
    device = torch.device("cuda") if backend == "nccl" else torch.device("cpu")
    try:
        dist.all_reduce(torch.zeros(1, device=device))
        found = []
        for pairs in pair_rounds(num_hosts):
            groups = {pair: dist.new_group(list(pair), timeout=timeout) for pair in pairs}
            mine = next((pair for pair in pairs if rank in pair), None)
            if mine is not None:
                speed = _measure(mine, groups[mine], device)
                found += [speed] if rank == mine[0] else []
            dist.barrier()
        return found
    finally:
        dist.destroy_process_group()


def _measure(pair: tuple[int, int], group: Any, device: Any) -> LinkSpeed:
    import torch

    small, large = torch.zeros(2, device=device), torch.zeros(_LARGE_BYTES // 4, device=device)
    latency = _median_seconds(small, group, _SMALL_REPEATS)
    seconds = _median_seconds(large, group, _LARGE_REPEATS)
    return LinkSpeed(pair, latency, _LARGE_BYTES / seconds)  # two hosts send each byte once: 2 (N-1) / N = 1


def _median_seconds(tensor: Any, group: Any, repeats: int) -> float:
    import torch
    import torch.distributed as dist

    taken = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        dist.all_reduce(tensor, group=group)
        if tensor.is_cuda:
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken[1:])
