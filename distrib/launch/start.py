"""From a job to a run: check everything, create the run, have a launcher train it, record how it ended."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from distrib.job.plan import Plan, Request, make_request, make_step_plan, with_memory
from distrib.job.reader import Job
from distrib.job.target import add_import_paths
from distrib.launch.devices import check_compression, choose_device, choose_device_on_ray, fit_workers
from distrib.launch.signals import StopSignals
from distrib.launch.torch_setup import torch_ready_to_fork
from distrib.observe.activity import ActivityRecorder
from distrib.observe.group import ObserverGroup
from distrib.observe.observer import Observer, SilentObserver
from distrib.runs.record import Run

if TYPE_CHECKING:
    from distrib.launch.monitor import RunMonitor
    from distrib.launch.ray.launcher import RayLauncher
    from distrib.launch.supervisor import MakeLauncher
    from distrib.train.context import AttemptConfig, Measurement
    from distrib.train.resolved_job import Datasets, ResolvedJob

Launcher = Literal["local", "ray"]


def run(
    job: Job,
    *,
    workers: int | None = None,
    launcher: Launcher = "local",
    address: str | None = None,
    run_id: str | None = None,
    fresh: bool = False,
    extend: bool = False,
    record_samples: bool = False,
    observer: Observer | None = None,
    started: float | None = None,
    measurement: Measurement | None = None,
) -> Run:
    """Trains a job and returns its finished run.

    Args:
        job: What to train.
        workers: The number of ranks, instead of the spec's.
        launcher: `local` for processes on this machine, `ray` for Ray Train.
        address: With `ray`, the cluster to join: its head's HOST:PORT, or `auto`; by default a Ray of its own on this
            machine.
        run_id: The run's id; by default the job's name, the time and four random characters. A run that exists and is
            not finished goes on from its newest checkpoint.
        fresh: Begin a new run beside one that exists, as ID-2.
        extend: Go on with a finished run, up to the epochs or steps that the job asks for now.
        record_samples: Whether each rank records the ids of its samples.
        observer: Told of everything that happens.
        started: Unix seconds from which the run's times count; by default now.
        measurement: What the ranks measure instead of training.

    Raises:
        JobError: The job is wrong; nothing was started and no folder left behind.
        LaunchError: The ranks could not be brought to life.
        TrainingFailedError: The training failed; the run's record tells how.
        StoppedError: A signal stopped the run.
    """
    if workers is not None:
        job = job.override([f"resources.workers={workers}"])
    observer = ObserverGroup([ActivityRecorder(), observer or SilentObserver()])
    started = time.time() if started is None else started
    with StopSignals() as signals:
        order = RunOptions(job, run_id, fresh, extend, record_samples, observer, started, signals, measurement)
        return order.on_ray(address) if launcher == "ray" else order.on_this_machine()


@dataclass(frozen=True)
class RunOptions:
    """What the caller of `run` has asked for."""

    job: Job
    run_id: str | None
    is_fresh: bool
    is_extended: bool
    record_samples: bool
    observer: Observer
    started: float
    signals: StopSignals
    measurement: Measurement | None = None

    def on_this_machine(self) -> Run:
        """Trains in local processes."""
        with torch_ready_to_fork() as can_fork:
            from distrib.launch.local.launcher import LocalLauncher

            prepared = _prepare(self.job, "local")
            world_size = fit_workers(prepared.request, prepared.num_gpus)
            inherited = prepared.datasets if prepared.datasets_can_be_inherited else None
            return self.execute(
                prepared,
                world_size,
                lambda assignment, watch: LocalLauncher(assignment, world_size, watch, inherited, can_fork),
            )

    def on_ray(self, address: str | None) -> Run:
        """Trains on the Ray cluster at `address`, or on a Ray of its own."""
        from distrib.launch.ray.existing import ExistingRay
        from distrib.launch.ray.local_cluster import LocalRay

        with LocalRay(self.job) if address is None else ExistingRay(self.job, address) as cluster:
            prepared = cluster.start_beside(lambda: _prepare(self.job, "ray", cluster.num_gpus))
            from distrib.launch.ray.launcher import RayLauncher, RayRun

            with RayRun(cluster, prepared.request) as ray_run:
                first = ray_run.find_place(self.observer.notice, is_stopping=lambda: False)
                assert first is not None
                placements = iter([first])

                def make_launcher(assignment: AttemptConfig, watch: RunMonitor) -> RayLauncher | None:
                    def is_stopping() -> bool:
                        watch.poll()  # the hold on the run is renewed while it waits for room
                        return watch.stop_requested()

                    placement = next(placements, None) or ray_run.find_place(watch.notice, is_stopping)
                    return None if placement is None else RayLauncher(assignment, placement, watch, ray_run)

                return self.execute(prepared, first.world_size, make_launcher)

    def execute(self, prepared: _Prepared, world_size: int, make_launcher: MakeLauncher) -> Run:
        """Claims the run's folder, trains and gives the folder up."""
        from distrib.launch.acquire import acquire_run
        from distrib.launch.supervisor import RunSupervisor
        from distrib.train.context import AttemptConfig

        plan = prepared.plan_for(world_size)
        self.signals.begin_claim()
        claim = acquire_run(
            self.job,
            self.run_id,
            plan.schedule.total_steps,
            is_fresh=self.is_fresh,
            is_extended=self.is_extended,
            check_start=prepared.check_weights,
        )
        if claim.lease is None:
            done = f"{claim.run.id} has finished already; --extend goes on with it, --fresh starts a new run beside it"
            self.observer.notice(done)
            self.observer.finished(claim.run)
            return claim.run
        assignment = AttemptConfig(
            job=self.job,
            request=plan.request,
            run_folder=claim.run.folder,
            run_url=None if claim.run.store is None else claim.run.store.url,
            working_directory=Path.cwd(),
            lease=claim.lease.token,
            record_samples=self.record_samples,
            measurement=self.measurement,
        )
        self.signals.begin_run()
        try:
            attempts = RunSupervisor(
                self.job, prepared.plan_for, world_size, claim, assignment, self.observer, self.started, self.signals
            )  # fmt: skip
            return attempts.run(make_launcher)
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

        prepared.check_weights()
        plan = prepared.plan_for(fit_workers(prepared.request, prepared.num_gpus))
        memory = estimate_memory(prepared.blueprint, plan.schedule)
        return plan if memory is None else with_memory(plan, memory)


def check_room(job: Job, address: str) -> None:
    """Checks that the Ray cluster at `address` could hold the job if it were empty; starts nothing.

    Raises:
        JobError: The job cannot be run on a cluster.
        LaunchError: The cluster cannot be reached, or has no room for the job.
    """
    from distrib.launch.ray.existing import ExistingRay

    asked = iter([False])
    with ExistingRay(job, address) as cluster:
        cluster.start_beside(lambda: None)
        request = make_request(job.spec, "ray", choose_device_on_ray(job, cluster.num_gpus()))
        cluster.find_place(
            request, {}, patience_seconds=None, notice=lambda _: None, is_stopping=lambda: next(asked, True)
        )


@dataclass(frozen=True)
class _Prepared:
    """A job that has passed every check, in a process that has imported all that it names."""

    job: Job
    request: Request
    num_gpus: int
    blueprint: ResolvedJob
    datasets: Datasets
    datasets_can_be_inherited: bool

    def plan_for(self, world_size: int) -> Plan:
        """The plan on `world_size` ranks."""
        return Plan(self.request, make_step_plan(self.job.spec, self.datasets.facts, world_size))

    def check_weights(self) -> None:
        """Makes sure that the file of `model.weights`, if there is one, fits the model; JobError if not."""
        from distrib.train.checkpoint.warm_start import check_weights

        check_weights(self.blueprint, Path.cwd())


def _prepare(job: Job, launcher: Launcher, count_gpus: Callable[[], int] | None = None) -> _Prepared:
    """Imports what the job names, builds its datasets and plans; JobError if anything is wrong.

    Args:
        job: The job.
        launcher: What is to train it.
        count_gpus: The number of GPUs that there are; by default those of this machine.
    """
    import torch

    from distrib.compat import torch_dynamo
    from distrib.launch.datasets import build_datasets
    from distrib.train.resolved_job import ResolvedJob

    add_import_paths(job, Path.cwd())
    torch_dynamo.install()
    num_gpus = torch.cuda.device_count()
    device = choose_device(job, num_gpus) if count_gpus is None else None
    blueprint = ResolvedJob.resolve(job)
    datasets, can_be_inherited = build_datasets(blueprint)
    if count_gpus is not None:
        num_gpus = count_gpus()
    request = make_request(job.spec, launcher, device or choose_device_on_ray(job, num_gpus))
    check_compression(job, request)
    return _Prepared(job, request, num_gpus, blueprint, datasets, can_be_inherited)
