"""From a job to a run: check everything, create the run, have a launcher train it, record how it ended."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from distrib.job.plan import Plan, make_request, make_schedule, with_memory
from distrib.job.reader import Job
from distrib.job.target import add_import_paths
from distrib.launch.devices import choose_device, fit_workers
from distrib.launch.observer import Observer, SilentObserver
from distrib.launch.torch_setup import torch_ready_to_fork
from distrib.runs.record import Run

if TYPE_CHECKING:
    from distrib.launch.attempts import MakeLauncher
    from distrib.train.blueprint import Blueprint, Datasets

Launcher = Literal["local", "ray"]


def run(
    job: Job,
    *,
    workers: int | None = None,
    launcher: Launcher = "local",
    run_id: str | None = None,
    fresh: bool = False,
    extend: bool = False,
    record_samples: bool = False,
    observer: Observer | None = None,
    started: float | None = None,
) -> Run:
    """Trains a job and returns its finished run.

    Args:
        job: What to train.
        workers: The number of ranks, instead of the spec's.
        launcher: `local` for processes on this machine, `ray` for a Ray of its own on this machine.
        run_id: The run's id; by default the job's name, the time and four random characters. A run that exists and is
            not finished goes on from its newest checkpoint.
        fresh: Begin a new run beside one that exists, as ID-2.
        extend: Go on with a finished run, up to the epochs or steps that the job asks for now.
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
    order = _Order(job, run_id, fresh, extend, record_samples, observer, started)
    if launcher == "ray":
        from distrib.launch.ray_train import OwnRay, RayLauncher

        with OwnRay(job) as cluster:
            prepared = cluster.start_beside(lambda: _prepare(job, launcher))
            return order.carry_out(
                prepared.plan,
                lambda assignment, watch: RayLauncher(assignment, prepared.world_size, watch, cluster),
            )
    with torch_ready_to_fork() as can_fork:
        from distrib.launch.local import LocalLauncher

        prepared = _prepare(job, launcher)
        inherited = prepared.datasets if prepared.datasets_can_be_inherited else None
        return order.carry_out(
            prepared.plan,
            lambda assignment, watch: LocalLauncher(assignment, prepared.world_size, watch, inherited, can_fork),
        )


@dataclass(frozen=True)
class _Order:
    """What the caller of `run` has asked for."""

    job: Job
    run_id: str | None
    is_fresh: bool
    is_extended: bool
    record_samples: bool
    observer: Observer
    started: float

    def carry_out(self, plan: Plan, make_launcher: MakeLauncher) -> Run:
        """Claims the run's folder, trains and gives the folder up."""
        from distrib.launch.attempts import Attempts
        from distrib.launch.claim import claim_run
        from distrib.train.host import Assignment

        claim = claim_run(
            self.job, self.run_id, plan.schedule.total_steps, is_fresh=self.is_fresh, is_extended=self.is_extended
        )
        if claim.lease is None:
            done = f"{claim.run.id} has finished already; --extend goes on with it, --fresh starts a new run beside it"
            self.observer.notice(done)
            self.observer.finished(claim.run)
            return claim.run
        assignment = Assignment(
            job=self.job,
            request=plan.request,
            run_folder=claim.run.folder,
            working_directory=Path.cwd(),
            lease=claim.lease.token,
            record_samples=self.record_samples,
        )
        try:
            return Attempts(self.job, plan, claim, assignment, self.observer, self.started).run(make_launcher)
        finally:
            claim.lease.release()


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
