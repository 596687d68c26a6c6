"""From a job to a run: check the job, acquire the run, train it with a launcher, record how it ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from distrib.errors import JobError
from distrib.job.launcher_names import LauncherName
from distrib.job.plan import Device, Plan, make_request
from distrib.job.reader import Job
from distrib.job.script import AnyJob, ScriptJob
from distrib.job.spec.amounts import parse_duration
from distrib.launch.options import RunOptions
from distrib.launch.process.signals import StopSignals
from distrib.launch.registry import make_launcher
from distrib.observe.activity import ActivityRecorder
from distrib.observe.group import ObserverGroup
from distrib.observe.observer import Observer
from distrib.observe.trackers.observer import TrackerObserver
from distrib.runs.run import Run
from distrib.runs.storage.folder.preparing import preparation_noted
from distrib.runs.storage.location import as_folder, is_url, join

if TYPE_CHECKING:
    from distrib.launch.acquire import AcquiredRun
    from distrib.launch.launcher import Launcher
    from distrib.launch.prepare import PreparedJob
    from distrib.launch.script.config import AnyConfig
    from distrib.launch.script.prepare import PreparedScript
    from distrib.train.checks.trial import Trial

    Prepared = PreparedJob | PreparedScript


def run(
    job: AnyJob, options: RunOptions | None = None, *, workers: int | None = None, observers: Sequence[Observer] = ()
) -> Run:
    """Trains a job and returns its finished run.

    Args:
        job: What to train.
        options: How to run it; by default in local processes, as a new run.
        workers: The number of ranks, instead of the spec's.
        observers: Receive everything that happens.

    Raises:
        JobError: The job, or the type of an argument, is wrong; nothing was started and no folder left behind.
        LaunchError: The ranks could not be started.
        TrainingFailedError: The training failed; the run's record has the cause.
        StoppedError: A signal stopped the run.
    """
    _check_types(job, options)
    options = replace(options or RunOptions(), started=(options and options.started) or time.time())
    if workers is not None:
        job = job.override([f"resources.workers={workers}"])
    with (
        StopSignals() as signals,
        _preparation_noted(job, options),
        make_launcher(job, options.launcher, options.address) as launcher,
    ):
        observer = ObserverGroup([ActivityRecorder(), *launcher.observers, *observers])
        for tracker in () if isinstance(job, ScriptJob) else job.spec.trackers:
            observer.add(TrackerObserver(tracker, observer.notice))
        prepared = launcher.prepare(lambda: _prepare(job, options.launcher, launcher.choose_device))
        return _execute(prepared, launcher, options, observer, signals)


def _check_types(job: object, options: object) -> None:
    """Refuses what is often passed instead of a job and its options: a path, or the number of workers."""
    if not isinstance(job, Job | ScriptJob):
        path = f'"{job}"' if isinstance(job, str | Path) else "PATH"
        raise JobError(f"run needs a Job, not a {type(job).__name__}; write run(Job.load({path}))")
    if options is not None and not isinstance(options, RunOptions):
        raise JobError(f"options must be RunOptions, not a {type(options).__name__}; write run(job, workers=2)")


def _preparation_noted(job: AnyJob, options: RunOptions) -> AbstractContextManager[None]:
    """Notes that the run is about to be continued, for whoever watches it, if it is in a folder of this machine."""
    if options.run_id is None or options.fresh or is_url(job.spec.storage):
        return nullcontext()
    return preparation_noted(as_folder(join(job.spec.storage, options.run_id)))


def _prepare(job: AnyJob, launcher: LauncherName, choose_device: Callable[[AnyJob], Device]) -> Prepared:
    if isinstance(job, ScriptJob):
        from distrib.launch.script.prepare import prepare_script

        return prepare_script(job, launcher, choose_device)
    from distrib.launch.prepare import prepare

    return prepare(job, launcher, choose_device)


def _execute(
    prepared: Prepared, launcher: Launcher, options: RunOptions, observer: Observer, signals: StopSignals
) -> Run:
    """Acquires the run, trains it and releases it."""
    from distrib.launch.acquire import RunRequest, acquire_run, finished_notice
    from distrib.launch.monitor import RunMonitor
    from distrib.launch.supervisor import RunSupervisor

    placement = launcher.find_room(prepared.request, observer.waiting, lambda: False)
    assert placement is not None, "only a stop ends the search for room without a placement"
    signals.begin_acquiring()
    plan = prepared.plan_for(placement.world_size).schedule
    request = RunRequest(prepared.job, options.run_id, plan.total_steps or None, options.fresh, options.extend)
    acquired = acquire_run(request, lambda: prepared.check_start(plan), lambda: prepared.check_extension(plan))
    if acquired.lease is None:
        observer.notice(finished_notice(acquired.run, request))
        observer.finished(acquired.run)
        return acquired.run
    signals.begin_run()
    if acquired.lease.notice is not None:
        observer.notice(acquired.lease.notice)
    try:
        is_script = isinstance(prepared.job, ScriptJob)
        started = options.started or time.time()
        monitor = RunMonitor(acquired.run, observer, started, acquired.lease, signals, is_script=is_script)
        supervisor = RunSupervisor(prepared, acquired, _config(prepared, acquired, options), launcher, monitor)
        return supervisor.run(placement)
    finally:
        acquired.lease.release()


def _config(prepared: Prepared, acquired: AcquiredRun, options: RunOptions) -> AnyConfig:
    """What all ranks of the run have in common."""
    from distrib.launch.script.config import ScriptConfig
    from distrib.train.context import AttemptConfig

    assert acquired.lease is not None
    if isinstance(prepared.job, ScriptJob):
        return ScriptConfig(
            job=prepared.job,
            request=prepared.request,
            run_location=str(acquired.run.location),
            working_directory=Path.cwd(),
            lease=acquired.lease.token,
            record_samples=options.record_samples,
        )
    limit = prepared.job.spec.train.time_limit
    return AttemptConfig(
        job=prepared.job,
        request=prepared.request,
        run_location=str(acquired.run.location),
        working_directory=Path.cwd(),
        lease=acquired.lease.token,
        record_samples=options.record_samples,
        measurement=options.measurement,
        deadline=None if limit is None else time.time() + parse_duration(limit),
    )


def plan(job: Job, *, launcher: LauncherName = "local") -> Plan:
    """What `run` would do with the job on this machine; starts nothing.

    Raises:
        JobError: The job is wrong.
    """
    return _plan(job, launcher)[0]


def plan_and_try(
    job: Job, *, launcher: LauncherName = "local", show: Callable[[Plan], None] = lambda _: None
) -> tuple[Plan, Trial]:
    """As `plan`, and runs one batch of rank 0 forward and backward in this process.

    Args:
        job: The job.
        launcher: The name of its launcher.
        show: Called with the plan before the batch is tried, which may fail.

    Raises:
        JobError: The job is wrong.
    """
    from distrib.train.checks.trial import try_step

    plan, prepared = _plan(job, launcher)
    show(plan)
    datasets = prepared.inherited_datasets or prepared.resolved.build_datasets()
    return plan, try_step(prepared.resolved, datasets, plan.schedule, plan.request.device)


def _plan(job: Job, launcher: LauncherName) -> tuple[Plan, PreparedJob]:
    from distrib.launch.process.fork_safety import torch_ready_to_fork

    with torch_ready_to_fork():
        import torch

        from distrib.launch.devices import choose_device, fit_workers
        from distrib.launch.prepare import prepare
        from distrib.train.checks.memory import estimate_memory

        num_gpus = torch.cuda.device_count()
        prepared = prepare(job, launcher, lambda job: choose_device(job, num_gpus))
        plan = prepared.plan_for(fit_workers(prepared.request, num_gpus))
        prepared.check_start(plan.schedule, may_allocate=True)
        description = make_launcher(job, launcher).describe(prepared.request)
        memory = estimate_memory(prepared.resolved, plan.schedule)
        return replace(plan, launch=description, memory=memory), prepared


def check_room(job: Job, launcher: LauncherName, address: str) -> None:
    """Checks that the cluster at `address` could hold the job if it were empty; starts nothing there.

    Raises:
        JobError: The job cannot be run on a cluster.
        LaunchError: The cluster cannot be reached, or has no room for the job.
    """
    is_stopping = iter([False])
    with make_launcher(job, launcher, address) as cluster:
        device = cluster.prepare(lambda: cluster.choose_device(job))
        request = make_request(job.spec, launcher, device)
        cluster.find_room(request, lambda _: None, lambda: next(is_stopping, True))
