"""From a job to a run: check everything, create the run, have a launcher train it, record how it ended."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from distrib.errors import JobError, StoppedError, TrainingFailedError
from distrib.job.plan import Plan, make_request, make_schedule, with_memory
from distrib.job.reader import Job
from distrib.job.target import add_import_paths
from distrib.launch.devices import choose_device, fit_workers, usable_cpus
from distrib.launch.observer import Observer, SilentObserver
from distrib.launch.torch_setup import torch_ready_to_fork
from distrib.runs.layout import RunLayout, new_run_id
from distrib.runs.provenance import collect_provenance
from distrib.runs.record import Run, create_record, update_record
from distrib.runs.storage import LocalStorage

if TYPE_CHECKING:
    from distrib.launch.local import LocalLauncher
    from distrib.launch.outcome import Outcome
    from distrib.launch.ray_train import RayLauncher
    from distrib.launch.watch import Watch
    from distrib.train.blueprint import Blueprint, Datasets
    from distrib.train.host import Assignment

Launcher = Literal["local", "ray"]
MakeLauncher: TypeAlias = "Callable[[Assignment, Watch], LocalLauncher | RayLauncher]"


def run(
    job: Job,
    *,
    workers: int | None = None,
    launcher: Launcher = "local",
    run_id: str | None = None,
    record_samples: bool = False,
    observer: Observer | None = None,
    started: float | None = None,
) -> Run:
    """Trains a job and returns its finished run.

    Args:
        job: What to train.
        workers: The number of ranks, instead of the spec's.
        launcher: `local` for processes on this machine, `ray` for a Ray of its own on this machine.
        run_id: The run's id; by default the job's name, the time and four random characters.
        record_samples: Whether each rank records the ids of its samples.
        observer: Told of everything that happens.
        started: Unix seconds from which the run's times count; by default now.

    Raises:
        JobError: The job is wrong; nothing was started and no folder left behind.
        LaunchError: The ranks could not be brought to life.
        TrainingFailedError: The training failed; the run's record tells how.
        StoppedError: A signal stopped the run.
    """
    if workers is not None:
        job = job.override([f"resources.workers={workers}"])
    observer = observer or SilentObserver()
    started = time.time() if started is None else started
    if launcher == "ray":
        from distrib.launch.ray_train import OwnRay, RayLauncher

        with OwnRay(job) as cluster:
            prepared = cluster.start_beside(lambda: _prepare(job, launcher))
            start = _Start(prepared, _new_folder(job, run_id), record_samples, observer, started)
            return start.run(lambda assignment, watch: RayLauncher(assignment, prepared.world_size, watch, cluster))
    with torch_ready_to_fork() as can_fork:
        from distrib.launch.local import LocalLauncher

        prepared = _prepare(job, launcher)
        inherited = prepared.datasets if prepared.datasets_can_be_inherited else None
        start = _Start(prepared, _new_folder(job, run_id), record_samples, observer, started)
        return start.run(
            lambda assignment, watch: LocalLauncher(assignment, prepared.world_size, watch, inherited, can_fork)
        )


def plan(job: Job, *, launcher: Launcher = "local") -> Plan:
    """What `run` would do with the job; starts nothing.

    Raises:
        JobError: The job is wrong.
    """
    with torch_ready_to_fork():
        prepared = _prepare(job, launcher)
        from distrib.train.memory import estimate_memory

        memory = estimate_memory(prepared.blueprint, prepared.plan.schedule)
        return prepared.plan if memory is None else with_memory(prepared.plan, memory)


@dataclass(frozen=True)
class _Prepared:
    """A job that has passed every check, in a process that has imported all that it names."""

    job: Job
    plan: Plan
    blueprint: Blueprint
    datasets: Datasets
    datasets_can_be_inherited: bool

    @property
    def world_size(self) -> int:
        """The number of ranks."""
        return self.plan.schedule.world_size


def _prepare(job: Job, launcher: Launcher) -> _Prepared:
    """Imports what the job names, builds its datasets and plans; JobError if anything is wrong."""
    import torch

    from distrib.launch.datasets import build_datasets
    from distrib.train import lazy_dynamo
    from distrib.train.blueprint import Blueprint

    add_import_paths(job, Path.cwd())
    lazy_dynamo.install()
    num_gpus = torch.cuda.device_count()
    request = make_request(job.spec, launcher, choose_device(job, num_gpus))
    blueprint = Blueprint.resolve(job)
    datasets, can_be_inherited = build_datasets(blueprint)
    schedule = make_schedule(job.spec, datasets.facts, fit_workers(request, num_gpus))
    return _Prepared(job, Plan(request, schedule), blueprint, datasets, can_be_inherited)


def _new_folder(job: Job, run_id: str | None) -> Path:
    """Creates the folder of a new run and its job.yaml."""
    root = Path(job.spec.storage).expanduser().absolute()
    LocalStorage(root).check_writable()
    folder = root / (run_id or new_run_id(job.name, datetime.now()))
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise JobError(f"--run-id: {folder} exists already; choose another id") from None
    RunLayout(folder).job_file.write_text(job.text)
    return folder


class _Start:
    """One run from its new folder to its end."""

    def __init__(
        self, prepared: _Prepared, folder: Path, record_samples: bool, observer: Observer, started: float
    ) -> None:
        self._prepared = prepared
        self._folder = folder
        self._record_samples = record_samples
        self._observer = observer
        self._started = started

    def run(self, make_launcher: MakeLauncher) -> Run:
        """Records the run's beginning, has it trained and records its end."""
        from distrib.launch.watch import Watch

        job, plan = self._prepared.job, self._prepared.plan
        values = plan.as_dict()
        run = create_record(
            self._folder,
            name=job.name,
            request=values["request"],
            schedule=values["schedule"],
            provenance=collect_provenance(job.folder, sys.argv),
            started=self._started,
        )
        self._observer.started(run, plan)
        self._say_oversubscription()
        with Watch(run, self._observer, self._started) as watch:
            try:
                outcome = self._launch(watch, make_launcher)
            except BaseException as error:
                update_record(self._folder, status="failed", error=_launch_error(error))
                self._observer.finished(run)
                raise
            failure = outcome.failure.as_dict() if outcome.failure else None
            update_record(self._folder, status=outcome.status, error=failure, result=watch.result)
        self._observer.finished(run)
        return self._conclude(run, outcome)

    def _launch(self, watch: Watch, make_launcher: MakeLauncher) -> Outcome:
        from distrib.train.host import Assignment

        prepared = self._prepared
        assignment = Assignment(
            job=prepared.job,
            request=prepared.plan.request,
            run_folder=self._folder,
            working_directory=Path.cwd(),
            record_samples=self._record_samples,
        )
        return make_launcher(assignment, watch).run()

    def _say_oversubscription(self) -> None:
        plan = self._prepared.plan
        wanted, there = plan.schedule.world_size * plan.request.cpus_per_worker, usable_cpus()
        if plan.request.device == "cpu" and wanted > there:
            self._observer.notice(f"{wanted} threads on {there} CPUs: the ranks will wait for each other")

    def _conclude(self, run: Run, outcome: Outcome) -> Run:
        if outcome.status == "stopped":
            raise StoppedError(f"run {run.id} was stopped")
        if outcome.failure is not None:
            failure = outcome.failure
            rank = "a rank" if failure.rank is None else f"rank {failure.rank}"
            raise TrainingFailedError(f"{rank} on {failure.host} failed: {failure.type}: {failure.message}")
        return run


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
