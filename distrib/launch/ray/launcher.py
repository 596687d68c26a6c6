"""The Ray launcher: Ray Train places one worker per rank and keeps watch over them."""

from __future__ import annotations

import secrets
import socket
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from distrib.compat.messages import ray_worker_exit
from distrib.job.plan import Request
from distrib.launch.failure_cause import find_cause, is_hang, log_errors
from distrib.launch.monitor import RunMonitor
from distrib.launch.ray.control_store import RayControlStore
from distrib.launch.ray.placement import place
from distrib.launch.ray.trainer import Placement, TrainerHandle
from distrib.launch.ray.worker import RankFailedError
from distrib.launch.result import AttemptResult
from distrib.runs.layout import RunLayout
from distrib.train.context import AttemptConfig
from distrib.train.failure import Failure

if TYPE_CHECKING:
    from distrib.launch.ray.existing import ExistingRay
    from distrib.launch.ray.local_cluster import LocalRay
    from distrib.launch.ray.node_monitor import NodeMonitor

_POLL_SECONDS = 0.1
_ASK_SECONDS = 0.3
_LOOK_SECONDS = 0.5
_SETTLE_SECONDS = 1.0
_AHEAD_SECONDS = 20.0
"""How long workers that start ahead of a resize have to get ready, where there is room for them."""
_CONTROLLER_SECONDS = 3.0
"""The same where there is none, and only Ray Train's controller can start ahead."""


class RayRun:
    """A run on Ray: the fits of its attempts, and what they and the launcher tell each other.

    Args:
        cluster: The Ray to run on, entered.
        request: What the run asks for.
    """

    def __init__(self, cluster: LocalRay | ExistingRay, request: Request) -> None:
        self.cluster = cluster
        self.request = request
        self.board = RayControlStore(secrets.token_hex(16))
        self._fit: TrainerHandle | None = None
        self._ahead: TrainerHandle | None = None
        self._fits: list[TrainerHandle] = []
        self.held: dict[str, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._ahead is not None:
            self._ahead.cancel()
        if self._fit is not None and not self._fit.is_over:
            self._fit.give_up()
        for fit in self._fits:
            fit.join()
        self.board.clear()

    def find_place(self, notice: Callable[[str], None], is_stopping: Callable[[], bool]) -> Placement | None:
        """Where the workers of the next attempt go; waits for room, or until a stop is asked for, which gives None.

        After a failure, hosts that are missing are waited for as long as for a rank that hangs.

        Raises:
            LaunchError: The cluster cannot hold the run.
        """
        ahead, hosts = self._ahead, self.cluster.hosts(self.request)
        if ahead is not None and hosts is not None and not ahead.is_over:
            nodes = {node: node for node in ahead.placement.node_ids or ()}
            if hosts.lost(nodes) is None:
                return ahead.placement
            ahead.cancel()
            self._ahead = None
        return self.cluster.find_place(
            self.request,
            self.held,
            patience_seconds=self.request.hang_timeout_seconds if self._fits else None,
            notice=notice,
            is_stopping=is_stopping,
        )

    def begin(self, assignment: AttemptConfig, placement: Placement) -> TrainerHandle:
        """Begins an attempt: in place, where the workers of the last one can be started anew, or by another fit."""
        self.held = {}
        ahead, self._ahead = self._ahead, None
        fit = self._fit
        if ahead is not None and not ahead.is_over and ahead.placement == placement:
            if fit is not None and not fit.is_over:
                fit.give_up()
            ahead.make(assignment.attempt)
            self._fit = ahead
            return ahead
        if ahead is not None:
            ahead.cancel()
        if fit is not None and not fit.is_over and fit.causes() is not None and fit.placement.allows(placement):
            fit.make(assignment.attempt)
            fit.go_on()
            return fit
        if fit is not None and not fit.is_over:
            fit.give_up()
        self._fit = fit = self._start(assignment, placement)
        fit.make(assignment.attempt)
        return fit

    def start_ahead(self, assignment: AttemptConfig, placement: Placement) -> None:
        """Starts workers for the next attempt while the ranks of this one still train."""
        self._ahead = self._start(assignment, placement)

    @property
    def is_ready_ahead(self) -> bool:
        """Whether the workers that were started ahead wait for their turn."""
        return self._ahead is not None and self._ahead.is_ready

    def _start(self, assignment: AttemptConfig, placement: Placement) -> TrainerHandle:
        fit = TrainerHandle(self.board, len(self._fits), placement)
        self._fits.append(fit)
        fit.start(assignment, self.cluster.folder, self.cluster.worker_environment)
        return fit

    def hosts_of(self, attempt: int, world_size: int) -> dict[str, str]:
        """The hosts that carry the ranks of an attempt, as far as these have begun: names by Ray's id."""
        notes = [self.board.read(f"place/{attempt}/{rank}") for rank in range(world_size)]
        found = [note for note in notes if note is not None]
        self.held = dict(Counter(note["node_id"] for note in found))
        return {note["node_id"]: note["name"] for note in found}


class RayLauncher:
    """Runs one attempt on Ray Train with a fixed number of workers.

    Args:
        assignment: What the ranks have in common.
        placement: How many, and where.
        watch: Told of events and output; asked whether to stop.
        run: The run that the attempt is part of.
    """

    def __init__(self, assignment: AttemptConfig, placement: Placement, watch: RunMonitor, run: RayRun) -> None:
        self._assignment = assignment
        self._placement = placement
        self._watch = watch
        self._run = run
        self._hosts: dict[str, str] = {}
        self._looked = 0.0
        self._resize: str | None = None
        self._resize_deadline = 0.0
        self._is_resizing = False
        self._is_done = False

    @property
    def world_size(self) -> int:
        """The number of workers."""
        return self._placement.world_size

    def run(self) -> AttemptResult:
        """Runs the attempt to its end."""
        layout, attempt = RunLayout(self._assignment.run_folder), self._assignment.attempt
        layout.rank_log(0).parent.mkdir(parents=True, exist_ok=True)
        self._watch.follow_store(attempt)
        fit = self._run.begin(self._assignment, self._placement)
        broken = self._follow(fit)
        self._watch.drain()
        failures = self._failures(fit, is_settled=broken is not None)
        log_errors(self._assignment.run_folder, failures)
        self._watch.skip_output()
        if broken is not None:
            return AttemptResult("stopped") if broken.host is None else AttemptResult("failed", _lost_host(broken.host))
        causes = None if self._is_done else fit.causes()
        if causes is None and (fit.error is None or self._is_done):
            is_finished = self._run.board.read(f"result/{attempt}") == "finished"
            if is_finished or self._resize is None:
                return AttemptResult("finished" if is_finished else "stopped")
            return AttemptResult("resized", reason=self._resize)
        return AttemptResult("failed", self._find_cause(causes or {}, failures, fit.error))

    def _follow(self, fit: TrainerHandle) -> _BrokenOff | None:
        """Passes on what the ranks write until the attempt ends; returns why it was broken off, if it was."""
        board, attempt = self._run.board, self._assignment.attempt
        deadline: float | None = None
        asked = 0.0
        while not fit.is_over and not self._is_done:
            if time.monotonic() - asked > _ASK_SECONDS:
                asked = time.monotonic()
                if fit.causes() is not None:
                    break
            time.sleep(_POLL_SECONDS)
            self._watch.poll()
            if self._watch.stop_requested() and deadline is None:
                board.wish(attempt, "stop")
                deadline = time.monotonic() + self._assignment.request.grace_seconds
            if self._watch.kill_requested() or (deadline is not None and time.monotonic() > deadline):
                self._watch.notice("ending at once")
                board.wish(attempt, "end")
                fit.give_up()
                return _BrokenOff(None)
            if lost := self._look_at_hosts(fit):
                board.wish(attempt, "end")
                fit.give_up()
                return _BrokenOff(lost)
        return None

    def _look_at_hosts(self, fit: TrainerHandle) -> str | None:
        """Sees to hosts that come and go, twice a second; returns the name of one that is lost."""
        if time.monotonic() - self._looked < _LOOK_SECONDS:
            return None
        self._looked = time.monotonic()
        attempt, hosts = self._assignment.attempt, self._run.cluster.hosts(self._run.request)
        if hosts is None:
            return None
        hosts.check()
        if len(self._run.held) == 0 or sum(self._run.held.values()) < self.world_size:
            self._hosts = self._run.hosts_of(attempt, self.world_size)
        lost = hosts.lost(self._hosts)
        if lost is not None and self._run.board.read(f"result/{attempt}") is not None:
            self._is_done = True  # all ranks have come to their end: a host may go now, as a drained one does
            return None
        if lost is None and self._resize is None and self._has_trained():
            self._consider(fit, hosts)
        elif lost is None and self._resize is not None and not self._is_resizing:
            is_late = time.monotonic() > self._resize_deadline
            if is_late or self._run.is_ready_ahead:
                self._is_resizing = True
                self._run.board.wish(attempt, "stop")
        return lost

    def _consider(self, fit: TrainerHandle, hosts: NodeMonitor) -> None:
        """Begins a resize where a host is being drained or there is room for more workers.

        The workers of the next attempt start while those of this one train on, as far as there is room for both.
        """
        request, held = self._run.request, self._run.held
        leaving = hosts.leaving(self._hosts)
        better = hosts.better(fit.placement, held)
        following = better if leaving is None else place(hosts.hosts, request, held)
        if leaving is not None:
            self._resize = f"{leaving} is being drained"
        elif better is not None:
            self._resize = f"there is room for {better.world_size} workers"
        if self._resize is None:
            return
        self._watch.notice(f"{self._resize}: a checkpoint, then on")
        self._resize_deadline = time.monotonic()
        if following is not None:
            self._run.start_ahead(self._assignment, following)
            is_room_for_both = (beside := place(hosts.hosts, request)) and beside.world_size >= following.world_size
            self._resize_deadline += _AHEAD_SECONDS if is_room_for_both else _CONTROLLER_SECONDS

    def _has_trained(self) -> bool:
        """Whether the ranks of this attempt have got as far as to hear of wishes."""
        start = self._watch.last("start")
        return start is not None and start.get("attempt") == self._assignment.attempt

    def _failures(self, fit: TrainerHandle, *, is_settled: bool) -> dict[int, Failure]:
        """What ranks have said of their failures; after a failure, the others get a moment to say why they ended."""
        board, attempt = self._run.board, self._assignment.attempt
        failures = board.failures(attempt, self.world_size)
        deadline = time.monotonic() + _SETTLE_SECONDS
        has_failed = fit.causes() is not None or fit.error is not None
        while has_failed and not is_settled and len(failures) < self.world_size and time.monotonic() < deadline:
            if any(failure.kind == "user" for failure in failures.values()):
                break
            time.sleep(_POLL_SECONDS)
            failures = board.failures(attempt, self.world_size)
        return failures

    def _find_cause(self, causes: dict[int, str], failures: dict[int, Failure], error: BaseException | None) -> Failure:
        """A lost process; else what ranks have said; else what Ray itself says."""
        attempt = self._assignment.attempt
        lost = {rank: text for rank, text in causes.items() if not _is_told(text)}
        silent = [rank for rank in range(self.world_size) if rank not in failures]
        is_user = any(failure.kind == "user" for failure in failures.values())
        if silent and not lost and is_hang(failures):
            return find_cause(failures, {}, silent)
        if not is_user and (lost or (failures and silent)):
            rank = min(lost) if lost else silent[0]
            note = self._run.board.read(f"place/{attempt}/{rank}")
            return _failure_on_ray(rank, lost.get(rank, ""), None if note is None else note["name"])
        if failures:
            return find_cause(failures, {})
        return _failure_on_ray(None, str(error or "; ".join(causes.values())), None)


@dataclass(frozen=True)
class _BrokenOff:
    """The ranks were told to end at once.

    Attributes:
        host: The name of the host that was lost; None where they did not stop in time.
    """

    host: str | None


def _is_told(text: str) -> bool:
    """Whether Ray's word for a worker's end is that the rank has told the launcher why."""
    return RankFailedError.__name__ in text


def _lost_host(name: str) -> Failure:
    return Failure(
        rank=None,
        host=name,
        type="HostLost",
        message="the host was lost: it does not answer any more",
        traceback=None,
        kind="infrastructure",
        time=time.time(),
    )


def _failure_on_ray(rank: int | None, text: str, host: str | None) -> Failure:
    """What Ray says of a rank, or of the attempt as a whole, where no rank did."""
    said = ray_worker_exit(text)
    lost = "" if rank is None else "the rank's process was lost" + ("; Ray says: " if said else "")
    return Failure(
        rank=rank,
        host=host or socket.gethostname(),
        type="RayError" if rank is None else "RankLost",
        message=lost + said,
        traceback=None,
        kind="infrastructure",
        time=time.time(),
    )
