"""A rank as a process on this machine."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, NoReturn

import torch.distributed as dist

import distrib.train.worker  # noqa: F401 - once, before ranks are forked
from distrib.launch.local.progress import SharedProgress
from distrib.launch.process.child import FORWARDED_SIGNALS
from distrib.launch.process.environment import set_rank_variables
from distrib.launch.process.output import flush_output, redirect_output
from distrib.launch.script.config import AnyConfig
from distrib.runs.layout import RunLayout
from distrib.train.context import RankInfo
from distrib.train.phases import RankProgress
from distrib.train.process.stacks import write_stacks_on_signal

if TYPE_CHECKING:
    from distrib.train.resolved_job import Datasets

EXIT_STATUS = {"finished": 120, "stopped": 121, "failed": 1}
"""The exit status of a rank's process; unusual numbers for success, since the user's code may call `os._exit(0)`."""
SUCCESS_STATUSES = (EXIT_STATUS["finished"], EXIT_STATUS["stopped"])

_LOOPBACK = "lo" if sys.platform == "linux" else "lo0"
_TERMINATED = threading.Event()


@dataclass(frozen=True)
class LocalRankContext:
    """The launcher as a rank on the same machine sees it.

    The ranks meet at a TCP store on loopback. The launcher opens its listening socket, so that no other process can
    take the port. The stop pipe reaches its end when the launcher closes its side, which requests a stop.

    Attributes:
        rank_info: The rank's numbers and host.
        port: Of the store.
        listener: Descriptor of the store's listening socket.
        stop_pipe: Descriptor of the stop pipe.
        shared_progress: Where ranks publish their positions.
    """

    rank_info: RankInfo
    port: int
    listener: int
    stop_pipe: int
    shared_progress: SharedProgress

    def open_store(self, timeout: timedelta) -> dist.Store:
        """The store that rank 0 serves."""
        return dist.TCPStore(
            "127.0.0.1",
            self.port,
            self.rank_info.world_size,
            is_master=self.rank_info.rank == 0,
            timeout=timeout,
            wait_for_workers=False,
            master_listen_fd=self.listener if self.rank_info.rank == 0 else None,
        )

    @cached_property
    def progress(self) -> RankProgress:
        """This rank's position in shared memory."""
        return self.shared_progress.of_rank(self.rank_info.rank)

    def stop_requested(self) -> bool:
        """Whether the launcher has requested a stop, or this very rank has received SIGTERM."""
        readable, _, _ = select.select([self.stop_pipe], [], [], 0)
        return bool(readable) or _TERMINATED.is_set()


def rank_main(config: AnyConfig, context: LocalRankContext, datasets: Datasets | None) -> NoReturn:
    """Runs the whole life of a rank's process and ends the process."""
    status = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        if config.is_script:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the script may handle it
        else:
            signal.signal(signal.SIGTERM, lambda *_: _TERMINATED.set())
        signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED_SIGNALS)
        redirect_output(RunLayout(config.run_folder), context.rank_info.rank, context.rank_info.host_name)
        write_stacks_on_signal()
        for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
            os.environ.setdefault(name, _LOOPBACK)
        set_rank_variables(context.rank_info, RunLayout(config.run_folder))
        result = config.run_rank(context, datasets)
        status = EXIT_STATUS[result.status]
        flush_output()
    finally:
        os._exit(status)
