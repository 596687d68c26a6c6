"""The process of a rank on any host: measured and killed from outside, as if native code in it holds Python's lock."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psutil

from distrib.launch.process.cpu_time import cpu_seconds_of

_SECONDS = 15.0
"""How long all hosts together may take: a worker process may have to be started there."""
_TOLERANCE_SECONDS = 0.1


@dataclass(frozen=True)
class RankProcess:
    """A rank's process, which is not taken for a later one with the same id.

    Attributes:
        host: The name of its host.
        node_id: Ray's id of its host.
        pid: Its id.
        started: Unix seconds.
    """

    host: str
    node_id: str
    pid: int
    started: float

    @classmethod
    def this_one(cls, node_id: str) -> RankProcess:
        """This process."""
        return cls(socket.gethostname(), node_id, os.getpid(), psutil.Process().create_time())

    @classmethod
    def of_entry(cls, entry: Mapping[str, Any]) -> RankProcess:
        """From what the rank has published."""
        return cls(entry["host"], entry["node_id"], entry["pid"], entry["started"])

    def kill(self) -> None:
        """Kills it, on its host."""
        with suppress(psutil.Error):
            if (process := self._find()) is not None:
                process.send_signal(signal.SIGKILL)

    def cpu_seconds(self) -> float | None:
        """The CPU time that it and its children have used; None if it is on another host or has ended."""
        if self.host != socket.gethostname() or self._find() is None:
            return None
        return cpu_seconds_of(self.pid)

    def _find(self) -> psutil.Process | None:
        with suppress(psutil.Error):
            process = psutil.Process(self.pid)
            if abs(process.create_time() - self.started) < _TOLERANCE_SECONDS:
                return process
        return None


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
