"""A run's life: attempts, until one ends for good."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol, TypeAlias

from distrib.errors import LaunchError, StoppedError, TrainingFailedError
from distrib.job.plan import Plan
from distrib.job.reader import Job
from distrib.launch.acquire import AcquiredRun, committed, write_job
from distrib.launch.devices import usable_cpus
from distrib.launch.monitor import RunMonitor
from distrib.launch.result import AttemptResult
from distrib.launch.signals import StopSignals
from distrib.observe.observer import Observer
from distrib.runs.checkpoints import remove_uncommitted
from distrib.runs.events import EventWriter
from distrib.runs.layout import RunLayout
from distrib.runs.owner import this_process
from distrib.runs.provenance import collect_provenance
from distrib.runs.record import Run, create_record, publish_record
from distrib.runs.sources import changed_sources, hash_sources
from distrib.runs.storage.errors import NotKeptError, StorageError, storage_problem
from distrib.train.context import AttemptConfig
from distrib.train.failure import Failure


class AttemptLauncher(Protocol):
    """What runs one attempt."""

    @property
    def world_size(self) -> int:
        """The number of ranks that it starts."""

    def run(self) -> AttemptResult:
        """Runs the attempt to its end."""


MakeLauncher: TypeAlias = Callable[[AttemptConfig, RunMonitor], AttemptLauncher | None]
"""Makes the launcher of the next attempt, or None where a stop came before there was room for it."""
_NOT_SHARED = "StorageNotSharedError"


class RunSupervisor:
    """Trains a claimed run, from its first attempt to the outcome that is recorded.

    A lost process or connection, or a hang, leads to the next attempt, from the newest checkpoint, as often as
    `failures.max_restarts` says; the user's own exception ends the run at once.

    Args:
        job: The job.
        plan_for: Its plan for a number of ranks.
        world_size: The number of ranks of the first attempt.
        claim: The run's folder.
        assignment: What all ranks have in common, but for the attempt.
        observer: Told of everything that happens.
        started: Unix seconds from which the run's times count.
        signals: Those that ask the run to stop.
    """

    def __init__(
        self,
        job: Job,
        plan_for: Callable[[int], Plan],
        world_size: int,
        claim: AcquiredRun,
        assignment: AttemptConfig,
        observer: Observer,
        started: float,
        signals: StopSignals,
    ) -> None:
        self._job = job
        self._plan_for = plan_for
        self._plan = plan_for(world_size)
        self._claim = claim
        assert claim.lease is not None
        self._lease = claim.lease
        self._run = claim.run
        self._layout = RunLayout(claim.run.folder)
        self._assignment = assignment
        self._observer = observer
        self._started = started
        self._signals = signals
        self._changed: list[str] = []

    def run(self, make_launcher: MakeLauncher) -> Run:
        """Trains the run.

        Raises:
            TrainingFailedError: It failed.
            StoppedError: A signal stopped it.
            LaunchError: Another launcher has taken the run over.
        """
        self._record_start()
        try:
            outcome = self._train(make_launcher)
        except BaseException as error:
            if self._lease.is_held and not isinstance(error, NotKeptError):
                with contextlib.suppress(OSError, StorageError):
                    publish_record(self._run, status="failed", error=_launch_error(error))
                self._observer.finished(self._run)
            raise
        self._observer.finished(self._run)
        return self._conclude(outcome)

    def _train(self, make_launcher: MakeLauncher) -> AttemptResult:
        self._observer.started(self._run, self._plan)
        self._say_what_surprises()
        watch = RunMonitor(self._run, self._observer, self._started, self._lease, self._signals)
        try:
            outcome = (
                AttemptResult("stopped") if watch.stop_requested() else self._attempt_until_done(watch, make_launcher)
            )
        finally:
            watch.settle()
        failure = outcome.failure.as_dict() if outcome.failure else None
        self._record_end(outcome, status=outcome.status, error=failure, result=watch.result)
        return outcome

    def _record_end(self, outcome: AttemptResult, **changes: Any) -> None:
        try:
            publish_record(self._run, **changes)
        except (OSError, StorageError) as error:
            why = storage_problem(error, str(self._layout.record_file)) or str(error)
            failure = "" if outcome.failure is None else f"; {_shown(outcome)}"
            raise NotKeptError(f"run {self._run.id}: its end was not recorded: {why}{failure}") from error

    def _attempt_until_done(self, watch: RunMonitor, make_launcher: MakeLauncher) -> AttemptResult:
        attempt, restarts, reason = self._claim.attempt, 0, ""
        while True:
            watch.settle()
            self._clear()
            launcher = make_launcher(replace(self._assignment, attempt=attempt), watch)
            if launcher is None:
                return AttemptResult("stopped")
            self._take_size(attempt, launcher.world_size, reason)
            outcome = launcher.run()
            watch.settle()
            self._lease.check()
            self._publish_leftovers(attempt)
            failure = outcome.failure
            if outcome.status in ("finished", "stopped"):
                return outcome
            if failure is not None and (is_final(failure) or restarts == self._job.spec.failures.max_restarts):
                return outcome
            if watch.stop_requested():
                return AttemptResult("stopped")
            attempt += 1
            publish_record(self._run, attempt=attempt)
            if failure is not None:
                restarts += 1
                self._write("restart", attempt, f"{_shown(outcome)}; restart {restarts}")
            reason = outcome.reason
            watch.poll()

    def _publish_leftovers(self, attempt: int) -> None:
        """Publishes what the ranks have not; that it cannot be published does not change how the attempt has ended."""
        if self._run.store is None:
            return
        try:
            self._run.store.publish_leftovers(attempt)
        except (OSError, StorageError) as error:
            self._observer.notice(f"not all logs are on the store, they are still in {self._run.folder}: {error}")

    def _take_size(self, attempt: int, world_size: int, reason: str) -> None:
        """Takes note of another number of ranks, or of the reason for which ranks move to other hosts."""
        before = self._plan.schedule.world_size
        change = f"{world_size} workers instead of {before}" if world_size != before else ""
        if change:
            self._plan = self._plan_for(world_size)
            publish_record(self._run, schedule=self._plan.as_dict()["schedule"])
        if change or reason:
            self._write("resize", attempt, ": ".join(part for part in (reason, change) if part))

    def _clear(self) -> None:
        """Removes what earlier attempts have left half done, while no rank runs."""
        remove_uncommitted(self._layout.checkpoints)
        for file in (self._layout.weights_file, self._layout.best_file, self._layout.record_file):
            for temporary in self._run.folder.glob(f".{file.name}.*"):
                temporary.unlink(missing_ok=True)
        for rank in range(self._plan.request.max_workers):
            Failure.remove(self._layout.rank_error(rank))
        if self._run.store is not None:
            self._run.store.checkpoints.remove_uncommitted()

    def _write(self, event: str, attempt: int, message: str) -> None:
        """Tells of a restart or a resize, and from where the run goes on, while no rank is alive to write."""
        checkpoints = committed(self._run)
        step = checkpoints[0].step if checkpoints else 0
        schedule = self._plan.schedule
        with EventWriter(self._layout.metrics_file, attempt) as events:
            events.write(
                event,
                step=step,
                epoch=schedule.position(step)[0],
                samples=schedule.samples_after(step),
                message=f"{message}, from step {step}",
            )
        if self._run.store is not None:
            self._run.store.metrics_writer(attempt).push()

    def _record_start(self) -> None:
        values = self._plan.as_dict()
        sources = hash_sources([self._assignment.working_directory, self._job.folder])
        if self._claim.is_new:
            create_record(
                self._run.folder,
                name=self._job.name,
                request=values["request"],
                schedule=values["schedule"],
                provenance={**collect_provenance(self._job.folder, sys.argv), "sources": sources},
                started=self._started,
            )
            if self._run.store is not None:
                self._run.store.publish(self._layout.record_file)
            return
        provenance = self._run.record.get("provenance") or {}
        self._changed = changed_sources(provenance.get("sources") or {}, sources)
        write_job(self._run, self._job)
        publish_record(
            self._run,
            status="running",
            ended=None,
            error=None,
            attempt=self._claim.attempt,
            request=values["request"],
            schedule=values["schedule"],
            owner=this_process(),
            provenance={**provenance, "sources": sources},
        )

    def _say_what_surprises(self) -> None:
        schedule, request = self._plan.schedule, self._plan.request
        if not self._claim.is_new:
            checkpoints = committed(self._run)
            step = checkpoints[0].step if checkpoints else 0
            self._observer.notice(f"going on with {self._run.id} from step {step} of {schedule.total_steps}")
        if self._changed:
            names = ", ".join(self._changed)
            self._observer.notice(f"the source code of {names} has changed since; the run goes on with what it is now")
        for note in schedule.notes:
            self._observer.notice(note)
        wanted, there = schedule.world_size * request.cpus_per_worker, usable_cpus()
        if request.launcher == "local" and request.device == "cpu" and wanted > there:
            self._observer.notice(f"{wanted} threads on {there} CPUs: the ranks will wait for each other")

    def _conclude(self, outcome: AttemptResult) -> Run:
        if outcome.status == "stopped":
            raise StoppedError(f"run {self._run.id} was stopped")
        failure = outcome.failure
        if failure is not None and failure.type == _NOT_SHARED:
            raise LaunchError(failure.message)
        if failure is not None:
            raise TrainingFailedError(_shown(outcome))
        return self._run


def is_final(failure: Failure) -> bool:
    """Whether another attempt would fail in the same way."""
    return failure.kind == "user" or failure.type == _NOT_SHARED


def _shown(outcome: AttemptResult) -> str:
    failure = outcome.failure
    assert failure is not None
    rank = "a rank" if failure.rank is None else f"rank {failure.rank}"
    return f"{rank} on {failure.host} failed: {failure.type}: {failure.message}"


def _launch_error(error: BaseException) -> dict[str, object]:
    """The record of an error of the launcher itself."""
    return {
        "rank": None,
        "host": os.uname().nodename,
        "type": type(error).__name__,
        "message": str(error),
        "traceback": None,
        "kind": "infrastructure",
    }
