"""A rank of a script on Ray: a process beside the Ray worker, so that the script has a main thread and gets signals."""

from __future__ import annotations

import functools
import os
import signal
import time
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, NoReturn

import torch.distributed as dist

from distrib.launch.local.progress import SharedProgress
from distrib.launch.local.rank import EXIT_STATUS, SUCCESS_STATUSES
from distrib.launch.process.child import FORWARDED_SIGNALS, spawn_child
from distrib.launch.process.output import flush_output, redirect_output
from distrib.launch.script.config import ScriptConfig
from distrib.launch.script.program import run_script
from distrib.launch.watch.failure_cause import find_cause
from distrib.train.context import RankInfo
from distrib.train.failure import Failure
from distrib.train.phases import RankProgress
from distrib.train.process.stacks import write_stacks_on_signal
from distrib.train.worker import RankResult

if TYPE_CHECKING:
    from distrib.launch.ray.rank_context import RayRankContext

_POLL_SECONDS = 0.05
_STATUSES = {number: status for status, number in EXIT_STATUS.items()}


@dataclass(frozen=True)
class ScriptProcessContext:
    """The launcher as the script's process sees it; see `RankContext`. A stop is requested by SIGTERM.

    Attributes:
        rank_info: The rank's numbers and host.
        address: Where rank 0 serves the store.
        port: Its port.
        listener: Descriptor of the listening socket, on rank 0.
        shared_progress: Where it publishes its position.
    """

    rank_info: RankInfo
    address: str
    port: int
    listener: int | None
    shared_progress: SharedProgress

    def open_store(self, timeout: timedelta) -> dist.Store:
        """The store that rank 0 serves."""
        return dist.TCPStore(
            self.address,
            self.port,
            self.rank_info.world_size,
            is_master=self.listener is not None,
            timeout=timeout,
            wait_for_workers=False,
            master_listen_fd=self.listener,
        )

    @functools.cached_property
    def progress(self) -> RankProgress:
        """This rank's position."""
        return self.shared_progress.of_rank(0)

    def stop_requested(self) -> bool:
        """Never."""
        return False


def run_in_process(config: ScriptConfig, context: RayRankContext) -> RankResult:
    """Runs the script as one rank in a process of its own, and passes on requests to stop.

    If a signal kills that process, this one ends in the same way, so that Ray finds a lost worker.
    """
    info, progress = context.rank_info, context.shared_progress
    assert progress is not None, "every rank of a script has it"
    error_file = config.layout.rank_error(info.rank)
    Failure.remove(error_file)  # the launcher does so on its own host, where one of the attempt before may be late
    address, port, listener = context.meet()
    descriptor = None if listener is None else listener.fileno()
    arguments = (config, ScriptProcessContext(info, address, port, descriptor, progress))
    pid = spawn_child(_main, arguments, [progress.descriptor, *([] if descriptor is None else [descriptor])])
    context.script_pids.append(pid)
    if listener is not None:
        listener.close()
    status = _wait(pid, context)
    failure = None if status in SUCCESS_STATUSES else Failure.read(error_file)
    if context.stop_requested():
        return RankResult("stopped", failure)
    if status in _STATUSES and (failure is not None or status != EXIT_STATUS["failed"]):
        return RankResult(_STATUSES[status], failure)
    if status < 0:
        flush_output()
        os.kill(os.getpid(), -status)
        time.sleep(1.0)
        os._exit(1)
    return RankResult("failed", replace(find_cause({}, {info.rank: status}), host=info.host_name))


def _wait(pid: int, context: RayRankContext) -> int:
    """Waits for the script's process; its exit status, negative for a signal's number."""
    has_forwarded = False
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if context.stop_requested() and not has_forwarded:
            os.kill(pid, signal.SIGTERM)
            has_forwarded = True
        time.sleep(_POLL_SECONDS)


def _main(config: ScriptConfig, context: ScriptProcessContext, _inherited: None) -> NoReturn:
    """The life of the script's process."""
    status = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the script may handle it
        signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED_SIGNALS)
        redirect_output(config.layout, context.rank_info.rank, context.rank_info.host_name)
        write_stacks_on_signal()
        status = EXIT_STATUS[run_script(config, context).status]
        flush_output()
    finally:
        os._exit(status)
