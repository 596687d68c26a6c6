"""One attempt in processes on this machine."""

from __future__ import annotations

import socket
import time

from distrib.launch.launcher import Attempt, AttemptResult
from distrib.launch.local.out_of_memory import OutOfMemoryKills
from distrib.launch.local.processes import RankProcesses
from distrib.launch.local.rank import EXIT_STATUS, SUCCESS_STATUSES
from distrib.launch.watch.failure_cause import (
    error_while_stopping,
    find_cause,
    log_errors,
    read_failures,
    with_early_ends,
)
from distrib.launch.watch.hangs import Hang, HangWatch, describe, hang_failure, is_hang
from distrib.launch.watch.idle_script import CodePosition, idle_notice
from distrib.launch.watch.position_table import RecordedPositions
from distrib.launch.watch.stacks import describe_main_thread, waits_for_others
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
        self._positions = RecordedPositions(
            self._ranks, RunLayout(self._folder), lambda: self._hosts, is_script=self._is_script
        )
        self._watch = HangWatch(self._positions, attempt.config.request.hang_timeout_seconds, is_script=self._is_script)
        self._hang: Failure | None = None
        self._has_reported_idle = False
        self._memory_kills = OutOfMemoryKills.so_far()
        self._hosts = dict.fromkeys(range(attempt.world_size), socket.gethostname())

    def run(self) -> AttemptResult:
        """Runs the attempt to its end; no rank outlives this call."""
        RunLayout(self._folder).rank_log(0).parent.mkdir(parents=True, exist_ok=True)
        try:
            self._ranks.start()
            statuses = self._wait()
            positions = {} if self._is_script else self._ranks.last_positions()
        finally:
            self._ranks.close()
            self._positions.remove()
        self._monitor.drain()
        world_size = self._attempt.world_size
        failures = self._failures()
        log_errors(self._folder, failures)
        self._monitor.skip_output()
        if self._is_script and self._monitor.stop_requested():
            if (error := error_while_stopping(failures)) is not None:
                self._monitor.notice(error)
            return AttemptResult("stopped")
        deaths = {rank: status for rank, status in statuses.items() if status not in SUCCESS_STATUSES}
        if self._hang is not None and all(rank in failures for rank in deaths):
            return AttemptResult("failed", self._hang)
        if deaths:
            cause = find_cause(failures, deaths, self._sigkill_reason())
            if self._is_script:
                cause = with_early_ends(cause, [rank for rank, end in statuses.items() if end in SUCCESS_STATUSES])
            return AttemptResult("failed", cause.at(positions[cause.rank]) if cause.rank in positions else cause)
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
            if (hang := self._watch.poll()) is not None:
                if not self._is_script:
                    self._conclude_hang(hang)
                    break
                self._report_idle_script(hang)
            if (stall := self._watch.new_stall()) is not None:
                self._monitor.waiting(describe(stall, self._hosts))
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
        if is_hang(self._failures(), self._ranks.alive, has_waited=self._watch.has_waited):
            statuses |= self._ranks.reap_until(1.0)
            self._conclude_hang(self._watch.hang_of(self._ranks.alive))
        return statuses

    def _conclude_hang(self, hang: Hang) -> None:
        """Writes the stacks of the ranks that are left, and makes the failure that names the late ones."""
        self._monitor.poll()
        stacks = self._ranks.write_stacks(f"distrib: no step has ended for {hang.seconds:.0f} s; stacks of this rank:")
        self._monitor.skip_output()  # the terminal gets the cause, not rank 0's stacks
        hang = hang.but_for([rank for rank, text in stacks.items() if waits_for_others(text)])
        where = describe_main_thread(stacks.get(hang.late[0], "")) if hang.late else None
        self._hang = hang_failure(hang, self._hosts, f"at {where}" if where else "")

    def _report_idle_script(self, hang: Hang) -> None:
        """Writes the stacks of a script's ranks once: its code may have a reason to wait."""
        if not self._has_reported_idle:
            self._has_reported_idle = True
            self._monitor.poll()
            stacks = self._ranks.write_stacks(
                f"distrib: the script has been idle for {hang.seconds:.0f} s; stacks of this rank:"
            )
            self._monitor.skip_output()
            positions = {rank: CodePosition.of_script(text) for rank, text in stacks.items()}
            self._monitor.notice(idle_notice(hang.seconds, positions, self._hosts))

    def _sigkill_reason(self) -> str:
        return OutOfMemoryKills.so_far().explain_since(self._memory_kills)

    def _failures(self) -> dict[int, Failure]:
        return read_failures(self._folder, self._attempt.world_size)
