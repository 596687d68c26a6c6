"""The local launcher: one process per rank on this machine."""

from __future__ import annotations

import faulthandler
import gc
import importlib
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

from distrib.launch.environment import name_rank
from distrib.launch.failure_cause import find_cause, is_hang, log_errors, read_failures
from distrib.launch.monitor import RunMonitor
from distrib.launch.result import AttemptResult
from distrib.runs.layout import RunLayout
from distrib.train.context import AttemptConfig, RankInfo
from distrib.train.process import die_with_parent
from distrib.train.worker import main

if TYPE_CHECKING:
    from distrib.train.resolved_job import Datasets

_POLL_SECONDS = 0.05
_PREPARATION_SECONDS = 3.0
_EXIT_STATUS = {"finished": 120, "stopped": 121, "failed": 1}
"""What a rank's process ends with; unusual numbers for what is good, since the user's code may call `os._exit(0)`."""
_GOOD_STATUSES = (_EXIT_STATUS["finished"], _EXIT_STATUS["stopped"])
_LOOPBACK = "lo" if sys.platform == "linux" else "lo0"


@dataclass(frozen=True)
class LocalRankContext:
    """The launcher as a rank on the same machine sees it.

    The ranks meet at a TCP store on loopback whose listening socket the launcher opened, so that no port can be lost to
    someone else. The stop pipe is at its end as soon as the launcher has closed its side: a wish to stop.
    """

    place: RankInfo
    port: int
    listener: int | None
    stop_pipe: int

    def open_store(self, timeout: timedelta) -> dist.Store:
        """The store that rank 0 serves."""
        return dist.TCPStore(
            "127.0.0.1",
            self.port,
            self.place.world_size,
            is_master=self.place.rank == 0,
            timeout=timeout,
            wait_for_workers=False,
            master_listen_fd=self.listener if self.place.rank == 0 else None,
        )

    def stop_requested(self) -> bool:
        """Whether the launcher has asked to stop, or someone has sent SIGTERM to this very rank."""
        readable, _, _ = select.select([self.stop_pipe], [], [], 0)
        return bool(readable) or _TERMINATED.is_set()


_TERMINATED = threading.Event()
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What a terminal or a scheduler sends to all processes of a run; a rank hears of it from the launcher."""


def rank_main(assignment: AttemptConfig, host: LocalRankContext, parent: int, datasets: Datasets | None = None) -> None:
    """The whole life of a rank's process, which it ends."""
    status = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: _TERMINATED.set())
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        die_with_parent(parent)
        _redirect_output(assignment, host.place.rank)
        faulthandler.enable(sys.stderr)
        for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
            os.environ.setdefault(name, _LOOPBACK)
        name_rank(host.place)
        result = main(assignment, host, datasets)
        status = _EXIT_STATUS[result.status]
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


def _redirect_output(assignment: AttemptConfig, rank: int) -> None:
    path = RunLayout(assignment.run_folder).rank_log(rank)
    log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)


class LocalLauncher:
    """Starts the ranks of one attempt on this machine and stays with them until the last one has ended.

    Ranks are forked from this process, which has imported torch and the job's modules and built its datasets, wherever
    that is safe; otherwise each is a new interpreter.

    Args:
        assignment: What the ranks have in common.
        world_size: How many.
        watch: Told of events and output; asked whether to stop.
        datasets: Built in this process, to be inherited by forked ranks; None has each rank build its own.
        can_fork: Whether this process can be forked.
    """

    def __init__(
        self, assignment: AttemptConfig, world_size: int, watch: RunMonitor, datasets: Datasets | None, can_fork: bool
    ) -> None:
        self._assignment = assignment
        self.world_size = world_size
        self._watch = watch
        self._datasets = datasets
        self._can_fork = can_fork
        self._pids: dict[int, int] = {}
        self._pidfds: dict[int, int] = {}
        self._stop_pipe: int | None = None
        self._started = time.monotonic()

    def run(self) -> AttemptResult:
        """Runs the attempt to its end; whatever happens, no rank outlives this call."""
        RunLayout(self._assignment.run_folder).rank_log(0).parent.mkdir(parents=True, exist_ok=True)
        try:
            self._start()
            statuses = self._wait()
        finally:
            self._kill()
            self._request_stop()
        self._watch.drain()
        failures = read_failures(self._assignment.run_folder, self.world_size)
        log_errors(self._assignment.run_folder, failures)
        self._watch.skip_output()
        deaths = {rank: status for rank, status in statuses.items() if status not in _GOOD_STATUSES}
        if deaths:
            silent = [rank for rank in range(self.world_size) if rank not in statuses and rank not in failures]
            return AttemptResult("failed", find_cause(failures, deaths, silent))
        is_finished = list(statuses.values()) == [_EXIT_STATUS["finished"]] * self.world_size
        return AttemptResult("finished" if is_finished else "stopped")

    def _start(self) -> None:
        listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        reader, self._stop_pipe = os.pipe()
        port = listener.getsockname()[1]
        start = self._fork if self._can_fork else self._spawn
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # until a rank has its own handlers
        try:
            if self._can_fork:
                gc.collect()
                gc.freeze()
            for rank in range(self.world_size):
                place = RankInfo(rank, self.world_size, rank, socket.gethostname(), gpu=rank)
                self._pids[rank] = start(LocalRankContext(place, port, listener.fileno(), reader))
                if hasattr(os, "pidfd_open"):
                    self._pidfds[rank] = os.pidfd_open(self._pids[rank])
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            gc.unfreeze()
            listener.close()
            os.close(reader)

    def _fork(self, host: LocalRankContext) -> int:
        cuda_is_used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
        assert not cuda_is_used, "a process that has used CUDA cannot be forked"
        launcher = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            assert self._stop_pipe is not None
            os.close(self._stop_pipe)
            rank_main(self._assignment, host, launcher, self._datasets)
        return pid

    def _spawn(self, host: LocalRankContext) -> int:
        descriptors = [host.stop_pipe, *([host.listener] if host.place.rank == 0 and host.listener is not None else [])]
        process = subprocess.Popen(
            [sys.executable, "-c", "from distrib.launch.local.launcher import spawned_main; spawned_main()"],
            stdin=subprocess.PIPE,
            pass_fds=descriptors,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        assert process.stdin is not None
        with process.stdin as pipe:
            pickle.dump((self._assignment, host, os.getpid()), pipe)
        process.returncode = 0  # reaped by _wait, as forked ranks are
        return process.pid

    def _wait(self) -> dict[int, int]:
        """Waits until all ranks have ended, one has failed, or they did not stop in time; returns the exit statuses."""
        statuses: dict[int, int] = {}
        deadline: float | None = None
        while self._pids:
            self._sleep()
            statuses.update(self._reap())
            self._watch.poll()
            self._prepare_restart()
            if any(status not in _GOOD_STATUSES for status in statuses.values()):
                self._await_others(statuses)
                break
            if self._watch.stop_requested() and deadline is None:
                self._request_stop()
                deadline = time.monotonic() + self._assignment.request.grace_seconds
            if self._watch.kill_requested():
                self._watch.notice("ending at once")
                break
            if deadline is not None and time.monotonic() > deadline:
                self._watch.notice("the ranks did not stop within failures.grace; ending them")
                break
        return statuses

    def _prepare_restart(self) -> None:
        """Imports, once and beside training, what ranks that are forked after a failure would each have to import."""
        is_due = time.monotonic() - self._started >= _PREPARATION_SECONDS
        if (
            self._can_fork
            and is_due
            and "distrib.train.checkpoint.restore" not in sys.modules
            and self._watch.last("checkpoint")
        ):
            importlib.import_module("distrib.train.checkpoint.restore")

    def _sleep(self) -> None:
        """Waits a moment, or until a rank has ended."""
        if self._pidfds:
            select.select(list(self._pidfds.values()), [], [], _POLL_SECONDS)
        else:
            time.sleep(_POLL_SECONDS)

    def _await_others(self, statuses: dict[int, int]) -> None:
        """After a failure, gives the other ranks a moment to say why they too ended."""
        self._await_ends(statuses, 0.2)
        if is_hang(read_failures(self._assignment.run_folder, self.world_size)):
            self._await_ends(statuses, 1.0)
            for pid in self._pids.values():
                os.kill(pid, signal.SIGABRT)  # has them write to their logs where they stand
            self._await_ends({}, 1.0)

    def _await_ends(self, statuses: dict[int, int], seconds: float) -> None:
        """Waits for ranks to end, so long at most; notes their exit statuses."""
        deadline = time.monotonic() + seconds
        while self._pids and time.monotonic() < deadline:
            time.sleep(0.01)
            statuses.update(self._reap())

    def _reap(self) -> dict[int, int]:
        ended = {}
        for rank, pid in list(self._pids.items()):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                ended[rank] = os.waitstatus_to_exitcode(status)
                self._forget(rank)
        return ended

    def _forget(self, rank: int) -> None:
        del self._pids[rank]
        if rank in self._pidfds:
            os.close(self._pidfds.pop(rank))

    def _request_stop(self) -> None:
        if self._stop_pipe is not None:
            os.close(self._stop_pipe)
            self._stop_pipe = None

    def _kill(self) -> None:
        for pid in self._pids.values():
            os.kill(pid, signal.SIGKILL)
        for rank, pid in list(self._pids.items()):
            os.waitpid(pid, 0)
            self._forget(rank)


def spawned_main() -> None:
    """The entry of a rank that is a new interpreter: its assignment comes on standard input."""
    assignment, host, parent = pickle.load(sys.stdin.buffer)
    rank_main(assignment, host, parent)
