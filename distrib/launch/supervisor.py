"""A run's life: attempts, until one ends for good."""

from __future__ import annotations

from dataclasses import replace

from distrib.errors import ClusterLostError, LaunchError, StoppedError, TrainingFailedError
from distrib.launch.acquire import AcquiredRun
from distrib.launch.launcher import Attempt, AttemptResult, Launcher, Placement
from distrib.launch.monitor import RunMonitor
from distrib.launch.prepare import PreparedJob
from distrib.launch.recorder import RunRecorder
from distrib.launch.script.config import AnyConfig
from distrib.launch.script.prepare import PreparedScript
from distrib.observe.resume_command import resume_command
from distrib.runs.run import Run
from distrib.runs.storage.errors import NotKeptError
from distrib.train.failure import Failure

_NOT_SHARED = "StorageNotSharedError"


class RunSupervisor:
    """Trains an acquired run, from its first attempt to the result that is recorded.

    A lost process or connection, or a hang, leads to the next attempt, from the newest checkpoint, at most
    `failures.max_restarts` times; the user's own exception ends the run at once.

    Args:
        prepared: The job.
        acquired: The run's folder and the hold on it.
        config: What all ranks have in common, except for the attempt.
        launcher: Starts the ranks.
        monitor: Reports what happens and signals that request a stop.
    """

    def __init__(
        self,
        prepared: PreparedJob | PreparedScript,
        acquired: AcquiredRun,
        config: AnyConfig,
        launcher: Launcher,
        monitor: RunMonitor,
    ) -> None:
        assert acquired.lease is not None
        self._prepared = prepared
        self._acquired = acquired
        self._lease = acquired.lease
        self._config = config
        self._launcher = launcher
        self._monitor = monitor
        self._recorder = RunRecorder(acquired, config)

    def run(self, placement: Placement) -> Run:
        """Trains the run.

        Args:
            placement: The workers of the first attempt.

        Raises:
            TrainingFailedError: It failed.
            StoppedError: A signal stopped it.
            LaunchError: Another launcher has taken the run over, or the cluster is lost.
        """
        run, observer = self._acquired.run, self._monitor.observer
        plan = self._prepared.plan_for(placement.world_size)
        changed = self._recorder.start(plan, self._monitor.started)
        try:
            observer.started(run, plan)
            self._report_start(plan.schedule.total_steps, [*plan.schedule.notes], changed)
            result = self._train(placement)
            self._recorder.end(result, self._monitor.result)
        except BaseException as error:
            if self._lease.is_held and not isinstance(error, NotKeptError):
                self._recorder.end_with_error(error)
                observer.finished(run)
            if isinstance(error, ClusterLostError):
                raise ClusterLostError(f"{error}; once it is back, continue with: {resume_command(run)}") from error
            raise
        observer.finished(run)
        return self._conclude(result)

    def _train(self, placement: Placement) -> AttemptResult:
        try:
            if self._monitor.stop_requested():
                return AttemptResult("stopped")
            return self._attempt_until_done(placement)
        finally:
            self._monitor.settle()

    def _attempt_until_done(self, first: Placement) -> AttemptResult:
        placement: Placement | None = first
        number, num_restarts, reason, world_size = self._acquired.attempt, 0, "", first.world_size
        max_restarts = self._config.job.spec.failures.max_restarts
        while placement is not None:
            self._recorder.clear(self._config.request.max_workers)
            self._take_size(number, placement.world_size, world_size, reason)
            world_size = placement.world_size
            result = self._attempt(number, placement)
            failure = result.failure
            if result.status in ("finished", "stopped"):
                return result
            if failure is not None and (is_final(failure) or num_restarts == max_restarts):
                return result
            if self._monitor.stop_requested():
                if failure is not None:
                    self._monitor.notice(f"not restarted, as a stop was requested: {failure.headline}")
                return AttemptResult("stopped")
            number += 1
            self._recorder.change(attempt=number)
            if failure is not None:
                num_restarts += 1
                plan = self._prepared.plan_for(world_size)
                self._recorder.write_event("restart", number, plan, f"{failure.headline}; restart {num_restarts}")
            reason = result.reason
            self._monitor.poll()
            placement = self._find_room()
        return AttemptResult("stopped")

    def _attempt(self, number: int, placement: Placement) -> AttemptResult:
        self._monitor.settle()
        config = replace(self._config, attempt=number)
        datasets = self._prepared.inherited_datasets
        result = self._launcher.run(Attempt(config, placement, self._monitor, datasets))
        self._monitor.settle()
        self._lease.check()
        self._recorder.publish_leftovers(number, self._monitor.observer)
        return result

    def _find_room(self) -> Placement | None:
        """The workers of the next attempt, or None if a stop was requested before there was room."""

        def is_stopping() -> bool:
            self._monitor.poll()  # renews the hold on the run while waiting
            return self._monitor.stop_requested()

        return self._launcher.find_room(self._config.request, self._monitor.waiting, is_stopping)

    def _take_size(self, number: int, world_size: int, before: int, reason: str) -> None:
        """Records another number of ranks, or the reason for which ranks move to other hosts."""
        change = f"{world_size} workers instead of {before}" if world_size != before else ""
        plan = self._prepared.plan_for(world_size)
        if change:
            self._recorder.change(schedule=plan.as_dict()["schedule"])
        if change or reason:
            message = ": ".join(part for part in (reason, change) if part)
            self._recorder.write_event("resize", number, plan, message)

    def _report_start(self, total_steps: int, notes: list[str], changed: list[str]) -> None:
        """Reports what may surprise the user."""
        notice = self._monitor.notice
        if not self._acquired.is_new:
            run_id, step = self._acquired.run.id, self._recorder.newest_step
            end = f" of {total_steps}" if total_steps else ""  # not known of a script
            notice(f"continuing {run_id} from step {step}{end}" if step or end else f"running {run_id} again")
        if changed:
            names = ", ".join(changed)
            notice(f"the source code of {names} has changed since; the run continues with the present code")
        for note in notes:
            notice(note)

    def _conclude(self, result: AttemptResult) -> Run:
        if result.status == "stopped":
            raise StoppedError(f"run {self._acquired.run.id} was stopped")
        failure = result.failure
        if failure is not None and failure.type == _NOT_SHARED:
            raise LaunchError(failure.message)
        if failure is not None:
            raise TrainingFailedError(failure.headline)
        return self._acquired.run


def is_final(failure: Failure) -> bool:
    """Whether another attempt would fail in the same way."""
    return failure.kind == "user" or failure.type == _NOT_SHARED
