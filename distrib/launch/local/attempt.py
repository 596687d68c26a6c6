"""One attempt in processes on this machine."""

from __future__ import annotations

import time

from distrib.launch.failure_cause import find_cause, is_hang, log_errors, read_failures, standstill
from distrib.launch.launcher import Attempt, AttemptResult
from distrib.launch.local.processes import RankProcesses
from distrib.launch.local.progress import StallWatch
from distrib.launch.local.rank import EXIT_STATUS, SUCCESS_STATUSES
from distrib.runs.layout import RunLayout
from distrib.train.failure import Failure

_POLL_SECONDS = 0.05


class LocalAttempt:
    """Starts the ranks of one attempt and waits until the last one has ended.

    Args:
        attempt: The attempt.
        can_fork: Whether this process can be forked, which starts ranks sooner; otherwise each is a new interpreter.
    """

    def __init__(self, attempt: Attempt, can_fork: bool) -> None:
        self._attempt = attempt
        self._folder = attempt.config.run_folder
        self._is_script = attempt.config.is_script
        self._monitor = attempt.monitor
        self._ranks = RankProcesses(attempt, can_fork)
        self._stall = StallWatch(self._ranks, attempt.config.request.hang_timeout_seconds)

    def run(self) -> AttemptResult:
        """Runs the attempt to its end; no rank outlives this call."""
        RunLayout(self._folder).rank_log(0).parent.mkdir(parents=True, exist_ok=True)
        try:
            self._ranks.start()
            statuses = self._wait()
        finally:
            self._ranks.close()
        self._monitor.drain()
        world_size = self._attempt.world_size
        failures = self._failures()
        log_errors(self._folder, failures)
        self._monitor.skip_output()
        if self._is_script and self._monitor.stop_requested():
            return AttemptResult("stopped")
        deaths = {rank: status for rank, status in statuses.items() if status not in SUCCESS_STATUSES}
        silent = [rank for rank in range(world_size) if rank not in statuses and rank not in failures]
        if deaths:
            return AttemptResult("failed", find_cause(failures, deaths, silent, has_waited=self._stall.has_waited))
        if self._stall.late_ranks is not None:
            return AttemptResult("failed", standstill(self._stall.late_ranks, self._stall.timeout_seconds))
        is_finished = list(statuses.values()) == [EXIT_STATUS["finished"]] * world_size
        return AttemptResult("finished" if is_finished else "stopped")

    def _wait(self) -> dict[int, int]:
        """Waits until all ranks have ended, one has failed, or they did not stop in time; returns exit statuses."""
        statuses: dict[int, int] = {}
        deadline: float | None = None
        while self._ranks:
            self._ranks.wait(_POLL_SECONDS)
            statuses.update(self._ranks.reap())
            self._monitor.poll()
            if not self._is_script and self._stall.is_stalled(self._monitor.num_events):
                self._write_stacks()
                break
            is_stopping = self._is_script and deadline is not None  # its ranks may end by SIGTERM
            if not is_stopping and any(status not in SUCCESS_STATUSES for status in statuses.values()):
                statuses.update(self._await_others())
                break
            if self._monitor.stop_requested() and deadline is None:
                self._ranks.request_stop()
                deadline = time.monotonic() + self._attempt.config.request.grace_seconds
            if self._monitor.kill_requested():
                self._monitor.notice("stopping immediately")
                break
            if deadline is not None and time.monotonic() > deadline:
                self._monitor.notice("the ranks did not stop within failures.grace; killing them")
                break
        return statuses

    def _await_others(self) -> dict[int, int]:
        """After a failure, waits a moment for the other ranks to report why they end too; returns exit statuses."""
        statuses = self._ranks.reap_until(0.2)
        if is_hang(self._failures(), self._ranks.alive, has_waited=self._stall.has_waited):
            statuses |= self._ranks.reap_until(1.0)
            self._write_stacks()
        return statuses

    def _write_stacks(self) -> None:
        """Has the ranks that are left write to their logs where they are, and end."""
        self._ranks.abort()
        self._ranks.reap_until(1.0)

    def _failures(self) -> dict[int, Failure]:
        return read_failures(self._folder, self._attempt.world_size)
