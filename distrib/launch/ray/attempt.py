"""One attempt on Ray Train: follows the ranks, reacts to lost, drained and new hosts, and finds the cause of an end."""

from __future__ import annotations

import time
from dataclasses import dataclass

from distrib.launch.launcher import Attempt, AttemptResult
from distrib.launch.ray.failures import host_lost, is_reported, ray_failure
from distrib.launch.ray.positions import PublishedPositions
from distrib.launch.ray.ranks import RayRanks
from distrib.launch.ray.resize import Resize
from distrib.launch.ray.trainers.handle import TrainerHandle
from distrib.launch.ray.trainers.run_trainers import RunTrainers
from distrib.launch.watch.failure_cause import error_while_stopping, find_cause, log_errors
from distrib.launch.watch.hangs import Hang, HangWatch, describe, hang_failure, is_hang
from distrib.launch.watch.idle_script import idle_notice
from distrib.launch.watch.position_table import RecordedPositions
from distrib.runs.layout import RunLayout
from distrib.train.failure import Failure

_POLL_SECONDS = 0.1
_TRAINER_POLL_SECONDS = 0.3
_NODE_POLL_SECONDS = 0.5
_SETTLE_SECONDS = 1.0
_STACK_SECONDS = 3.0
_BREAK_OFF_SECONDS = 2.0
_END_SECONDS = 5.0
"""How long the ranks may take until Ray Train has noticed that they have ended; then they restart in place."""


@dataclass(frozen=True)
class _BrokenOff:
    """The ranks were ended before they had come to an end themselves.

    Attributes:
        lost_host: The name of the host that was lost; None if the ranks did not stop in time.
    """

    lost_host: str | None


class RayAttempt:
    """Runs one attempt on Ray Train with a fixed number of workers.

    Args:
        attempt: The attempt.
        trainers: Those of the run that the attempt is part of.
    """

    def __init__(self, attempt: Attempt, trainers: RunTrainers) -> None:
        self._config = attempt.config
        self._number = attempt.config.attempt
        self._placement = attempt.placement
        self._world_size = attempt.world_size
        self._monitor = attempt.monitor
        self._trainers = trainers
        self._ranks = RayRanks(trainers.control, self._number, self._world_size)
        self._resize = Resize(attempt, trainers)
        self._nodes: dict[str, str] = {}
        self._nodes_polled = 0.0
        self._is_done = False
        self._positions = PublishedPositions(trainers.control, self._number, self._world_size)
        is_script = attempt.config.is_script
        self._table = RecordedPositions(
            self._positions, RunLayout(self._config.run_folder), self._ranks.hosts, is_script=is_script
        )
        self._watch = HangWatch(self._table, attempt.config.request.hang_timeout_seconds, is_script=is_script)
        self._hang: Failure | None = None
        self._has_reported_idle = False

    def run(self) -> AttemptResult:
        """Runs the attempt to its end."""
        folder = self._config.run_folder
        RunLayout(folder).rank_log(0).parent.mkdir(parents=True, exist_ok=True)
        self._monitor.follow_store(self._number)
        trainer = self._trainers.begin(self._config, self._placement)
        try:
            broken_off = self._follow(trainer)
        finally:
            self._table.remove()
        self._monitor.drain()
        is_incomplete = broken_off is None and (trainer.has_failed or trainer.error is not None)
        failures = self._ranks.failures(_SETTLE_SECONDS if is_incomplete else 0.0)
        log_errors(folder, failures)
        self._monitor.skip_output()
        if self._hang is not None:
            return AttemptResult("failed", self._hang)
        if broken_off is not None:
            if broken_off.lost_host is None:
                return AttemptResult("stopped")
            return AttemptResult("failed", host_lost(broken_off.lost_host))
        causes = None if self._is_done else trainer.causes()
        if causes is None and (trainer.error is None or self._is_done):
            is_finished = self._ranks.result == "finished"
            if self._monitor.stop_requested() and (error := error_while_stopping(failures)) is not None:
                self._monitor.notice(error)
            if is_finished or self._resize.reason is None:
                return AttemptResult("finished" if is_finished else "stopped")
            return AttemptResult("resized", reason=self._resize.reason)
        return AttemptResult("failed", self._find_cause(causes or {}, failures, trainer.error))

    def _follow(self, trainer: TrainerHandle) -> _BrokenOff | None:
        """Passes on what the ranks write until the attempt ends; returns why it was broken off, if it was."""
        deadline: float | None = None
        polled = 0.0
        start = self._trainers.watch_start(trainer, self._monitor.notice)
        while not trainer.is_over and not self._is_done:
            if time.monotonic() - polled > _TRAINER_POLL_SECONDS:
                polled = time.monotonic()
                if trainer.has_failed:
                    break
            time.sleep(_POLL_SECONDS)
            self._monitor.poll()
            start.poll()
            if self._monitor.stop_requested() and deadline is None:
                self._ranks.request_stop()
                grace_seconds = self._config.request.grace_seconds
                if not self._ranks.hosts():  # no rank has begun, so nothing would be lost
                    grace_seconds = min(grace_seconds, _END_SECONDS)
                deadline = time.monotonic() + grace_seconds
            is_late = deadline is not None and time.monotonic() > deadline
            if self._monitor.kill_requested() or is_late:
                self._monitor.notice("stopping immediately")
                return self._break_off(trainer, None)
            if (hang := self._watch.poll()) is not None and self._is_final(hang):
                self._end_hanging(hang, trainer)
                return None
            if (stall := self._watch.new_stall()) is not None:
                self._monitor.waiting(describe(stall, self._ranks.hosts()))
            if lost := self._poll_nodes(trainer):
                return self._break_off(trainer, lost)
        return None

    def _break_off(self, trainer: TrainerHandle, lost_host: str | None) -> _BrokenOff:
        self._ranks.request_end()
        trainer.end()
        if lost_host is None:
            self._ranks.end(lambda: trainer.is_over, _BREAK_OFF_SECONDS)
        return _BrokenOff(lost_host)

    def _is_final(self, hang: Hang) -> bool:
        """Whether a hang ends the attempt; a script may have a reason to wait: only its stacks are written, once."""
        if self._config.is_script and not self._has_reported_idle:
            self._has_reported_idle = True
            stacks = self._positions.request_stacks(_STACK_SECONDS)
            self._monitor.notice(idle_notice(hang.seconds, stacks, self._ranks.hosts()))
        return not self._config.is_script

    def _end_hanging(self, hang: Hang, trainer: TrainerHandle) -> None:
        """Has all ranks write their stacks, ends them, and makes the failure that names the late ones."""
        self._monitor.poll()
        self._hang = self._hang_failure(hang)
        self._ranks.end(lambda: trainer.has_failed or trainer.is_over, _END_SECONDS)

    def _hang_failure(self, hang: Hang) -> Failure:
        stacks = self._positions.request_stacks(_STACK_SECONDS)
        hang = hang.but_for([rank for rank, position in stacks.items() if position.waits])
        late = stacks.get(hang.late[0]) if hang.late else None
        where = None if late is None else late.where
        return hang_failure(hang, self._ranks.hosts(), f"at {where}" if where else "")

    def _poll_nodes(self, trainer: TrainerHandle) -> str | None:
        """Reacts to hosts that come and go, twice a second; returns the name of one that is lost."""
        if time.monotonic() - self._nodes_polled < _NODE_POLL_SECONDS:
            return None
        self._nodes_polled = time.monotonic()
        nodes = self._trainers.node_monitor()
        if nodes is None:
            return None
        nodes.check()
        if sum(self._trainers.held.values()) < self._world_size:
            self._nodes = self._trainers.nodes_of(self._number, self._world_size)
        lost = nodes.lost(self._nodes)
        if lost is None:
            self._resize.advance(trainer.placement, nodes, self._nodes)
        elif self._ranks.result is not None:
            self._is_done = True  # all ranks have come to their end: a host may go now, as a drained one does
            return None
        return lost

    def _find_cause(self, causes: dict[int, str], failures: dict[int, Failure], error: BaseException | None) -> Failure:
        """A lost process; else what ranks have reported; else what Ray itself reports."""
        lost = {rank: text for rank, text in causes.items() if not is_reported(text)}
        silent = [rank for rank in range(self._world_size) if rank not in failures]
        is_user = any(failure.kind == "user" for failure in failures.values())
        if not lost and is_hang(failures, silent, has_waited=self._watch.has_waited):
            return self._hang_failure(self._watch.hang_of(silent))
        if not is_user and (lost or (failures and silent)):
            rank = min(lost) if lost else silent[0]
            failure = ray_failure(rank, lost.get(rank, ""), self._ranks.host(rank))
            position = self._positions.read().get(rank)
            return failure if position is None or self._config.is_script else failure.at(position)
        if failures:
            return find_cause(failures, {})
        text = str(error or "; ".join(causes.values()))
        if not self._ranks.hosts() and (logs := self._trainers.describe_error_logs()):
            text = f"no rank has begun: {text}\n{logs}"
        return ray_failure(None, text, None)
