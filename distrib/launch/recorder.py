"""Records in a run's folder how its attempts went: run.json, restart events, and what a dead attempt left behind."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

from distrib.job.plan import Plan
from distrib.launch.acquire import AcquiredRun
from distrib.launch.launcher import AttemptResult
from distrib.launch.script.config import AnyConfig
from distrib.observe.observer import Observer
from distrib.runs.backwards import lines_backwards
from distrib.runs.events import EventWriter, parse_event
from distrib.runs.files.atomic import remove_temporary
from distrib.runs.owner import this_process
from distrib.runs.provenance import collect_provenance
from distrib.runs.sources import changed_sources, hash_sources
from distrib.runs.storage.errors import NotKeptError, StorageError, storage_problem
from distrib.train.failure import Failure


class RunRecorder:
    """Writes to the folder of an acquired run what its launcher knows, while no rank runs.

    Args:
        acquired: The run.
        config: What all its ranks have in common.
    """

    def __init__(self, acquired: AcquiredRun, config: AnyConfig) -> None:
        self._acquired = acquired
        self._run = acquired.run
        self._config = config
        self._layout = acquired.run.layout

    def start(self, plan: Plan, started: float) -> list[str]:
        """Records that the run begins or continues; returns the modules whose source code has changed since.

        Args:
            plan: What is about to run.
            started: Unix seconds from which the times of this launch count.
        """
        values, job = plan.as_dict(), self._config.job
        sources = hash_sources([self._config.working_directory, job.folder])
        if self._acquired.is_new:
            self._run.create_record(
                name=job.name,
                request=values["request"],
                schedule=None if plan.script is not None else values["schedule"],
                provenance={**collect_provenance(job.folder, sys.argv), "sources": sources},
                started=started,
            )
            return []
        provenance = self._run.record.get("provenance") or {}
        self._run.write_job(job.text)
        self._run.update_record(
            status="running",
            launched=started,
            earlier_seconds=self._run.recorded_seconds,
            ended=None,
            completed_steps=None,
            error=None,
            attempt=self._acquired.attempt,
            request=values["request"],
            schedule=None if plan.script is not None else values["schedule"],
            owner=this_process(),
            provenance={**provenance, "command": sys.argv, "sources": sources},
        )
        return changed_sources(provenance.get("sources") or {}, sources)

    def change(self, **changes: Any) -> None:
        """Changes fields of run.json."""
        self._run.update_record(**changes)

    def end(self, result: AttemptResult, metrics: dict[str, Any]) -> None:
        """Records how the run ended, and the newest values of training and evaluation.

        Raises:
            NotKeptError: It cannot be written.
        """
        failure = result.failure
        try:
            error = None if failure is None else failure.as_dict()
            steps, _ = self._run.steps
            self._run.update_record(status=result.status, error=error, result=metrics, completed_steps=steps)
        except (OSError, StorageError) as problem:
            why = storage_problem(problem, str(self._layout.record_file)) or str(problem)
            cause = "" if failure is None else f"; {failure.headline}"
            raise NotKeptError(f"run {self._run.id}: its end was not recorded: {why}{cause}") from problem

    def end_with_error(self, error: BaseException) -> None:
        """Records that the launcher itself failed, if that can be written."""
        with contextlib.suppress(OSError, StorageError):
            self._run.update_record(status="failed", error=Failure.of_launcher(error).as_dict())

    def clear(self, max_workers: int) -> None:
        """Removes what earlier attempts have left incomplete."""
        self._run.checkpoints.remove_uncommitted()
        remove_temporary(self._run.folder)
        for rank in range(max_workers):
            Failure.remove(self._layout.rank_error(rank))

    def publish_leftovers(self, attempt: int, observer: Observer) -> None:
        """Publishes what the ranks have not; failing to do so does not change how the attempt has ended."""
        try:
            self._run.storage.publish_leftovers(attempt)
        except (OSError, StorageError) as error:
            observer.notice(f"not all logs are on the store, they are still in {self._run.folder}: {error}")

    def write_event(self, event: str, attempt: int, plan: Plan, message: str) -> None:
        """Writes the event of a restart or a resize, with the step from which the run continues."""
        step = self.newest_step
        epoch, samples = self._position(step, plan)
        with EventWriter(self._layout.metrics_file, attempt) as events:
            events.write(
                event,
                step=step,
                epoch=epoch,
                samples=samples,
                message=message if plan.script is not None and not step else f"{message}, from step {step}",
            )
        self._run.storage.publish_events(attempt)

    def _position(self, step: int, plan: Plan) -> tuple[int, int]:
        """The epoch and the samples after `step` steps; those that an event has if the plan does not know them."""
        schedule = plan.schedule
        epoch, samples = schedule.position(step)[0], schedule.samples_after(step)
        if not step or (schedule.order is None and plan.script is None):
            return epoch, samples
        events = (parse_event(line) for line in lines_backwards(self._layout.metrics_file))
        known = next((event for event in events if event is not None and event.get("step") == step), {})
        if isinstance(known.get("samples"), int):
            samples = known["samples"]
        if plan.script is not None:
            epoch = known.get("epoch", 0)
        return epoch, samples

    @property
    def newest_step(self) -> int:
        """The step of the newest committed checkpoint, 0 if there is none."""
        checkpoints = self._run.checkpoints.list()
        return checkpoints[0].step if checkpoints else 0
