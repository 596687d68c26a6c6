"""The launcher as a rank in a Ray Train worker sees it."""

from __future__ import annotations

import socket
import threading
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from distrib.launch.local.progress import SharedProgress
from distrib.launch.network import listen_on
from distrib.train.context import RankInfo
from distrib.train.phases import RankProgress

if TYPE_CHECKING:
    import torch.distributed as dist


@dataclass(frozen=True)
class RayRankContext:
    """The launcher as a rank in a Ray Train worker sees it.

    Attributes:
        rank_info: The rank's numbers and host.
        address: The address of its host in the cluster.
        stopping: Set once the launcher has requested a stop.
        progress: This rank's position.
        shared_progress: Memory for the position, if the rank runs a script.
        script_pids: The process of the script, if the rank runs one.
    """

    rank_info: RankInfo
    address: str
    stopping: threading.Event = field(default_factory=threading.Event)
    progress: RankProgress = field(default_factory=RankProgress.private)
    shared_progress: SharedProgress | None = None
    script_pids: list[int] = field(default_factory=list)

    def meet(self) -> tuple[str, int, socket.socket | None]:
        """Where rank 0 serves the store, which Ray Train broadcasts, and on rank 0 the socket that listens there."""
        from ray.train.collective import broadcast_from_rank_zero

        if self.rank_info.rank != 0:
            address, port = broadcast_from_rank_zero(None)
            return address, port, None
        listener = listen_on(self.address)
        port = listener.getsockname()[1]
        broadcast_from_rank_zero((self.address, port))
        return self.address, port, listener

    def open_store(self, timeout: timedelta) -> dist.Store:
        """The store that rank 0 serves."""
        import torch.distributed as dist

        address, port, listener = self.meet()
        return dist.TCPStore(
            address,
            port,
            self.rank_info.world_size,
            is_master=listener is not None,
            timeout=timeout,
            wait_for_workers=False,
            master_listen_fd=None if listener is None else listener.detach(),
        )

    def stop_requested(self) -> bool:
        """Whether the launcher has requested a stop."""
        return self.stopping.is_set()
