"""Predicting processes: one for each shard, forked where that is safe; none outlives the call."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any, NoReturn

from distrib.errors import DistribError, InferenceError, JobError
from distrib.inference.prediction.shard import Inherited, Shard, predict_shard
from distrib.inference.prediction.writers import Part
from distrib.launch.process.child import FORWARDED_SIGNALS, fork_child, signals_blocked, spawn_child
from distrib.train.process.tracebacks import user_traceback

_WAIT_SECONDS = 0.1


def predict_in_processes(
    shards: Sequence[Shard], inherited: Inherited, can_fork: bool, report: Callable[[int], None]
) -> list[Part]:
    """Predicts each shard in its own process.

    Args:
        shards: The shards to predict.
        inherited: What a forked process does not have to build.
        can_fork: Whether forking this process is safe.
        report: Called regularly with the total number of rows done.

    Returns:
        The parts, in the order of the shards.

    Raises:
        DistribError: The error of the first process that failed.
    """
    processes = _Processes()
    try:
        for shard in shards:
            processes.start(shard, inherited, can_fork)
        return processes.wait(report)
    finally:
        processes.end()


class _Processes:
    """The running processes, by the pipe on which each reports its progress."""

    def __init__(self) -> None:
        self._pids: dict[Connection, int] = {}
        self._shards: dict[Connection, Shard] = {}
        self._num_started = 0

    def start(self, shard: Shard, inherited: Inherited, can_fork: bool) -> None:
        reader, writer = Pipe(duplex=False)
        arguments = (shard, writer.fileno())
        try:
            with signals_blocked():
                if can_fork:
                    pid = fork_child(_run, arguments, inherited)
                else:
                    pid = spawn_child(_run, arguments, [writer.fileno()])
                self._pids[reader], self._shards[reader] = pid, shard
        finally:
            writer.close()

    def wait(self, report: Callable[[int], None]) -> list[Part]:
        """Waits until all processes have ended; returns their parts in order."""
        parts: dict[int, Part] = {}
        num_done = dict.fromkeys((shard.number for shard in self._shards.values()), 0)
        while self._pids:
            for pipe in wait(list(self._pids), _WAIT_SECONDS):
                assert isinstance(pipe, Connection)
                shard = self._shards[pipe]
                message = self._receive(pipe)
                if isinstance(message, int):
                    num_done[shard.number] = message
                elif isinstance(message, Part):
                    parts[shard.number] = message
                    self._reap(pipe)
                else:
                    raise message
            report(sum(num_done.values()))
        return [parts[number] for number in sorted(parts)]

    def _receive(self, pipe: Connection) -> Any:
        try:
            return pipe.recv()
        except (EOFError, OSError):
            rows = self._shards[pipe].rows
            status = os.waitstatus_to_exitcode(self._reap(pipe))
            how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"exited with {status}"
            advice = " (possibly out of memory: try a smaller `batch_size`)" if status == -signal.SIGKILL else ""
            raise InferenceError(f"the process of rows {rows.start} to {rows.stop - 1} {how}{advice}") from None

    def _reap(self, pipe: Connection) -> int:
        _, status = os.waitpid(self._pids.pop(pipe), 0)
        pipe.close()
        return status

    def end(self) -> None:
        """Kills the remaining processes."""
        with signals_blocked():
            for pid in self._pids.values():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            for pipe in list(self._pids):
                self._reap(pipe)


def _run(shard: Shard, descriptor: int, inherited: Inherited | None) -> NoReturn:
    """The whole life of a predicting process, which it ends; Ctrl-C is its parent's affair."""
    status = 1
    pipe = Connection(descriptor, readable=False)
    try:
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED_SIGNALS)
        os.dup2(2, 1)  # what the user's code prints; stdout is for the result
        pipe.send(_result(shard, inherited or Inherited(), pipe))
        sys.stdout.flush()
        sys.stderr.flush()
        status = 0
    finally:
        os._exit(status)


def _result(shard: Shard, inherited: Inherited, pipe: Connection) -> Part | DistribError:
    """The part or the error, in a picklable form."""
    try:
        return predict_shard(shard, inherited, pipe.send)
    except JobError as error:
        return JobError(str(error))
    except DistribError as error:
        return InferenceError(str(error))
    except OSError as error:
        return InferenceError(f"{shard.part.name}: {type(error).__name__}: {error}")
    except BaseException as error:
        return InferenceError(f"{type(error).__name__}: {error}\n{user_traceback(error)}".rstrip())
