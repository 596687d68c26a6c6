"""Kills ranks on any host of a cluster that do not end when they are told to, as in native code that holds the lock."""

from __future__ import annotations

import os
import signal
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass

import psutil

_SECONDS = 15.0
"""How long all hosts together may take: a worker process may have to be started there."""
_TOLERANCE_SECONDS = 1.0


@dataclass(frozen=True)
class RankProcess:
    """A rank's process, which is not taken for a later one with the same id.

    Attributes:
        node_id: Ray's id of its host.
        pid: Its id.
        started: Unix seconds.
    """

    node_id: str
    pid: int
    started: float

    @classmethod
    def this_one(cls, node_id: str) -> RankProcess:
        """This process."""
        return cls(node_id, os.getpid(), psutil.Process().create_time())

    def kill(self) -> None:
        """Kills it, on its host."""
        with suppress(psutil.Error):
            process = psutil.Process(self.pid)
            if abs(process.create_time() - self.started) < _TOLERANCE_SECONDS:
                process.send_signal(signal.SIGKILL)


def kill_everywhere(processes: Collection[RankProcess]) -> None:
    """Kills processes on this host at once, and on others by a task that runs there."""
    if not processes:
        return
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = str(ray.get_runtime_context().get_node_id())
    kill = ray.remote(num_cpus=0, max_retries=0)(RankProcess.kill)
    tasks = []
    for process in processes:
        if process.node_id == here:
            process.kill()
            continue
        pinned = NodeAffinitySchedulingStrategy(process.node_id, soft=False)
        tasks.append(kill.options(scheduling_strategy=pinned).remote(process))
    if tasks:
        ray.wait(tasks, num_returns=len(tasks), timeout=_SECONDS)
