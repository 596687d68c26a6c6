"""The processes of one attempt's ranks on this machine: started together, reaped and killed."""

from __future__ import annotations

import os
import select
import signal
import socket
import time

from distrib.launch.launcher import Attempt
from distrib.launch.local.progress import SharedProgress
from distrib.launch.local.rank import LocalRankContext, rank_main
from distrib.launch.process.child import fork_child, signals_blocked, spawn_child
from distrib.launch.process.cpu_time import cpu_seconds_of
from distrib.launch.watch.stacks import LogMark, request_stacks, write_native_stacks
from distrib.runs.layout import RunLayout
from distrib.train.context import RankInfo
from distrib.train.phases import Position

_STACK_SECONDS = 2.0
_STACK_SETTLE_SECONDS = 0.2


class RankProcesses:
    """Starts the ranks of an attempt as processes and watches which of them have ended.

    Args:
        attempt: The attempt.
        can_fork: Whether this process can be forked; otherwise each rank is a new interpreter.
    """

    def __init__(self, attempt: Attempt, can_fork: bool) -> None:
        self._attempt = attempt
        self._can_fork = can_fork
        self._pids: dict[int, int] = {}
        self._pidfds: dict[int, int] = {}
        self._stop_pipe: int | None = None
        self._progress = SharedProgress.create(attempt.world_size)

    def __bool__(self) -> bool:
        return bool(self._pids)

    @property
    def alive(self) -> list[int]:
        """The ranks that have not ended."""
        return list(self._pids)

    def start(self) -> None:
        """Starts all ranks."""
        listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        reader, self._stop_pipe = os.pipe()
        try:
            with signals_blocked():
                for rank in range(self._attempt.world_size):
                    info = RankInfo(rank, self._attempt.world_size, rank, socket.gethostname(), gpu=rank)
                    context = LocalRankContext(
                        info, listener.getsockname()[1], listener.fileno(), reader, self._progress
                    )
                    self._pids[rank] = self._start(context)
                    if hasattr(os, "pidfd_open"):
                        self._pidfds[rank] = os.pidfd_open(self._pids[rank])
        finally:
            listener.close()
            os.close(reader)

    def _start(self, context: LocalRankContext) -> int:
        arguments = (self._attempt.config, context)
        assert self._stop_pipe is not None
        if self._can_fork:
            return fork_child(rank_main, arguments, self._attempt.datasets, close=[self._stop_pipe])
        listener = [context.listener] if context.rank_info.rank == 0 else []  # only rank 0 serves the store
        return spawn_child(rank_main, arguments, [context.stop_pipe, self._progress.descriptor, *listener])

    def wait(self, seconds: float) -> None:
        """Waits until a rank has ended, at most this long."""
        if self._pidfds:
            select.select(list(self._pidfds.values()), [], [], seconds)
        else:
            time.sleep(seconds)

    def reap(self) -> dict[int, int]:
        """The exit statuses of ranks that have ended since the last call, by rank; negative is a signal's number."""
        ended = {}
        for rank, pid in list(self._pids.items()):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                ended[rank] = os.waitstatus_to_exitcode(status)
                self._forget(rank)
        return ended

    def reap_until(self, timeout_seconds: float) -> dict[int, int]:
        """Waits until all ranks have ended, at most this long; returns exit statuses as `reap` does."""
        statuses: dict[int, int] = {}
        deadline = time.monotonic() + timeout_seconds
        while self._pids and time.monotonic() < deadline:
            time.sleep(0.01)
            statuses.update(self.reap())
        return statuses

    def request_stop(self) -> None:
        """Requests all ranks to stop at the next step that they agree on; scripts, which may not agree, by SIGTERM."""
        if self._attempt.config.is_script:
            for pid in self._pids.values():
                os.kill(pid, signal.SIGTERM)
        if self._stop_pipe is not None:
            os.close(self._stop_pipe)
            self._stop_pipe = None

    def write_stacks(self, heading: str) -> dict[int, str]:
        """Has the ranks that are left write their stacks to their logs.

        Args:
            heading: A line that is written before them.

        Returns:
            The stacks that have been written, by rank.
        """
        layout = RunLayout(self._attempt.config.run_folder)
        marks = {rank: LogMark(layout.rank_log(rank), layout.rank_log_times(rank), heading) for rank in self._pids}
        for pid in self._pids.values():
            request_stacks(pid)
        write_native_stacks((pid, layout.native_stacks(rank)) for rank, pid in self._pids.items())
        deadline = time.monotonic() + _STACK_SECONDS
        while not all(mark.has_grown for mark in marks.values()) and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(_STACK_SETTLE_SECONDS)
        return {rank: mark.text() for rank, mark in marks.items()}

    def kill(self) -> None:
        """Kills the ranks that are left."""
        for pid in self._pids.values():
            os.kill(pid, signal.SIGKILL)
        for rank, pid in list(self._pids.items()):
            os.waitpid(pid, 0)
            self._forget(rank)

    def read(self) -> dict[int, Position]:
        """Where the ranks that are left stand."""
        positions = self._progress.read()
        return {rank: positions[rank] for rank in self._pids}

    def last_positions(self) -> dict[int, Position]:
        """Where all ranks stand, or stood when they ended."""
        return self._progress.read()

    def cpu_seconds(self) -> dict[int, float]:
        """The CPU time that each rank which is left and its children have used, by rank."""
        return {rank: cpu_seconds_of(pid) for rank, pid in self._pids.items()}

    def close(self) -> None:
        """Kills the ranks that are left and closes what was opened for them."""
        self.kill()
        self.request_stop()
        self._progress.close()

    def _forget(self, rank: int) -> None:
        del self._pids[rank]
        if rank in self._pidfds:
            os.close(self._pidfds.pop(rank))
