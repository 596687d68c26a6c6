"""The program of a rank: the same under every launcher."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from distrib.compat import torch_dynamo
from distrib.errors import TrainingFailedError
from distrib.job.plan import StepPlan, make_step_plan
from distrib.job.reader import Job
from distrib.job.target import add_import_paths
from distrib.runs.events import EventWriter
from distrib.runs.layout import RunLayout
from distrib.runs.storage.errors import NotKeptError, StorageError, storage_problem
from distrib.runs.storage.open import open_rank
from distrib.runs.storage.protocols import RankStorage
from distrib.train.checkpoint.checkpointer import Checkpointer
from distrib.train.checkpoint.saving import BestWeights, Saving
from distrib.train.checkpoint.warm_start import load_first_weights
from distrib.train.checkpoint.weights import save_weights
from distrib.train.context import AttemptConfig, RankContext, RankInfo
from distrib.train.control import Control, gather_rows
from distrib.train.data.batches import describe
from distrib.train.data.loader import Fetcher, StepLoader
from distrib.train.data.sample_record import SampleRecord
from distrib.train.data.sampler import GlobalBatchSampler
from distrib.train.evaluation import Evaluator
from distrib.train.failure import Failure
from distrib.train.loop import Loop
from distrib.train.loss_accumulator import CAPACITY
from distrib.train.optimizer import SchedulerState, build_optimizer
from distrib.train.precision import Precision
from distrib.train.process import temporary_files_removed
from distrib.train.resolved_job import Datasets, ResolvedJob
from distrib.train.step import TrainStep
from distrib.train.strategy.ddp import (
    batch_norm_warning,
    broadcast_buffers,
    join_process_group,
    limit_waiting,
    use_threads,
    wrap,
)
from distrib.train.task import Task

if TYPE_CHECKING:
    from distrib.train.strategy.compression import PowerSgd


@dataclass(frozen=True)
class RankResult:
    """How a rank ended: at the end of the schedule, at an agreed stop, or by a failure."""

    status: str
    failure: Failure | None = None


def main(assignment: AttemptConfig, host: RankContext, datasets: Datasets | None = None) -> RankResult:
    """Trains as one rank; an error is written for the launcher and returned, never raised.

    Args:
        assignment: What all ranks have in common.
        host: The launcher's side.
        datasets: The job's datasets, where the launcher has built them in this process already.
    """
    storage = open_rank(assignment.run_location, host.place.rank, assignment.attempt, assignment.lease)
    try:
        with temporary_files_removed(assignment.job.spec.data.loader_workers):
            is_finished = _train(assignment, host, datasets, storage)
    except BaseException as error:
        failure = Failure.of(error, host.place)
        if storage.may_write:
            failure.write(storage.layout.rank_error(host.place.rank))
        sys.stdout.flush()
        sys.stderr.flush()
        storage.close(has_failed=True)
        return RankResult("failed", failure)
    storage.close(has_failed=False)
    return RankResult("finished" if is_finished else "stopped")


def _train(
    assignment: AttemptConfig,
    host: RankContext,
    datasets: Datasets | None,
    storage: RankStorage,
) -> bool:
    torch_dynamo.install()
    job, request, place = assignment.job, assignment.request, host.place
    add_import_paths(job, assignment.working_directory)
    use_threads(request.cpus_per_worker)
    device = _use_device(assignment, place.gpu)
    control_group = join_process_group(host, request)
    blueprint = ResolvedJob.resolve(job)
    datasets = datasets or blueprint.build_datasets()
    schedule = make_step_plan(job.spec, datasets.facts, place.world_size)
    task = Task(blueprint, device)
    is_new = not _has_checkpoint(storage, control_group)
    if is_new:
        load_first_weights(job, assignment.working_directory, task.model)
    optimizer = build_optimizer(blueprint, schedule, task.model)
    compression = _compression(job, place.world_size)
    rates = SchedulerState(blueprint, schedule, optimizer)  # before restoring: to make one sets the optimizer's rates
    state, problems = (None, []) if is_new else _restore(
        storage, task, optimizer, compression, control_group
    )  # fmt: skip
    if state is None and not is_new:
        load_first_weights(job, assignment.working_directory, task.model)
    first_step = 0 if state is None else int(state["completed_steps"])
    loop, loader, stepper = _build(
        assignment, host, storage.layout, blueprint, datasets, schedule, device, control_group, task, optimizer, rates,
        compression, first_step,
    )  # fmt: skip
    saving = _saving(assignment, storage, schedule, task, optimizer, compression, loop)
    if first_step >= schedule.total_steps:
        _warn_of_damage(loop, problems, first_step)
        return _finish(loop, place, storage, control_group)
    first = loader.next()
    stepper.warm_up(first, control_group)
    if compression is not None:
        compression.begin(first_step)
    facts = {"device": _name(device), "input_signature": describe(first.batches[0])}
    if assignment.measurement is not None:
        from distrib.train.profiler import StepProfiler

        limit_waiting(request, control_group)
        meter = StepProfiler(assignment, host, schedule, task, loader, stepper, device, control_group)
        return meter.run(first, storage.layout.measurement_file)
    loop.begin(stepper.is_weighted, saving, facts)
    if state is not None:
        loop.restore(state)
    surprise = batch_norm_warning(task.model, schedule)
    if surprise is not None:
        loop.warn(surprise)
    _warn_of_damage(loop, problems, first_step)
    limit_waiting(request, control_group)
    is_finished = loop.run(first)
    if is_finished:
        return _finish(loop, place, storage, control_group)
    _end_records(loop, storage, control_group)
    return False


def _compression(job: Job, world_size: int) -> PowerSgd | None:
    """What compresses gradients and remembers what it left out; other compressions remember nothing."""
    if job.spec.ddp.compress != "powersgd" or world_size == 1:
        return None
    from distrib.train.strategy.compression import PowerSgd

    return PowerSgd(job.spec.ddp.powersgd, job.spec.train.seed)


def _end_records(loop: Loop, storage: RankStorage, control_group: dist.ProcessGroup) -> None:
    """Ends a rank together with the others, with all written and published that tells of the run."""
    try:
        loop.flush()
        storage.publish_records()
    except (OSError, StorageError) as error:
        raise _not_kept("the last events or samples were not kept", error, storage.layout.metrics_file) from error
    dist.barrier(group=control_group)


def _warn_of_damage(loop: Loop, problems: list[str], first_step: int) -> None:
    for problem in problems:
        loop.warn(f"a damaged checkpoint was passed over and renamed damaged-…: {problem}")
    if problems:
        place = f"goes on from step {first_step}" if first_step else "starts from the beginning: no checkpoint is left"
        loop.warn(f"training {place}")


def _finish(loop: Loop, place: RankInfo, storage: RankStorage, control_group: dist.ProcessGroup) -> bool:
    """Writes the final weights; a run that cannot has failed."""
    broadcast_buffers(loop.task.model)
    if place.rank == 0:
        weights_file = storage.layout.weights_file
        try:
            storage.check_held()
            save_weights(loop.task.model, weights_file)
            storage.publish(weights_file)
        except (OSError, StorageError) as error:
            raise _not_kept("the final weights were not kept", error, weights_file) from error
    dist.barrier(group=control_group)  # so that of what could not be kept the weights are named first
    _end_records(loop, storage, control_group)
    return True


def _not_kept(what: str, error: BaseException, file: Path) -> NotKeptError:
    return NotKeptError(f"{what}: {storage_problem(error, str(file)) or error}")


def _has_checkpoint(storage: RankStorage, control_group: dist.ProcessGroup) -> bool:
    """Whether rank 0 sees a checkpoint that claims to be committed."""
    is_there = dist.get_rank() == 0 and bool(storage.checkpoints.list())
    return bool(gather_rows([float(is_there)], control_group)[0][0])


def _restore(
    storage: RankStorage,
    task: Task,
    optimizer: torch.optim.Optimizer,
    compression: PowerSgd | None,
    control_group: dist.ProcessGroup,
) -> tuple[dict[str, Any] | None, list[str]]:
    """Takes up the newest good checkpoint, where there is one; returns its state and the damage found in newer ones."""
    from distrib.train.checkpoint.restore import Restorer

    restorer = Restorer(storage.checkpoints, control_group)
    folder = restorer.find()
    return (None if folder is None else restorer.load(folder, task.model, optimizer, compression)), restorer.problems


def _saving(
    assignment: AttemptConfig,
    storage: RankStorage,
    schedule: StepPlan,
    task: Task,
    optimizer: torch.optim.Optimizer,
    compression: PowerSgd | None,
    loop: Loop,
) -> Saving:
    """What saves checkpoints and best weights, as the spec has it."""
    spec = assignment.job.spec.checkpoint
    timeout = timedelta(seconds=assignment.request.hang_timeout_seconds)
    checkpointer = None
    if schedule.is_ever_saved:
        group = dist.new_group(backend="gloo", timeout=timeout)
        checkpointer = Checkpointer(
            storage,
            assignment.attempt,
            task.model,
            optimizer,
            group,
            spec.keep,
            loop.flush,
            compression,
        )
    best = None
    if spec.best is not None:
        best = BestWeights(spec.best, storage, is_writer=dist.get_rank() == 0)
    storage.start()
    return Saving(checkpointer, best, schedule, storage.take_notices)


def _build(
    assignment: AttemptConfig,
    host: RankContext,
    layout: RunLayout,
    blueprint: ResolvedJob,
    datasets: Datasets,
    schedule: StepPlan,
    device: torch.device,
    control_group: dist.ProcessGroup,
    task: Task,
    optimizer: torch.optim.Optimizer,
    rates: SchedulerState,
    compression: PowerSgd | None,
    first_step: int,
) -> tuple[Loop, StepLoader, TrainStep]:
    """Puts the parts of a rank together."""
    spec, place = assignment.job.spec, host.place
    collate, seed = blueprint.bound_collate(), spec.train.seed
    precision = Precision(spec.train.precision, device)
    sampler = GlobalBatchSampler(
        datasets.train,
        batch_size=spec.data.batch_size,
        num_replicas=place.world_size,
        rank=place.rank,
        seed=seed,
        accumulate=spec.train.accumulate,
    )
    fetcher = Fetcher(datasets.train, collate, seed)
    loader = StepLoader(fetcher, sampler, schedule, device, spec.data.loader_workers, first_step)
    model = wrap(task.model, spec.ddp, device, compression)
    stepper = TrainStep(task, model, optimizer, precision, schedule, spec.train.clip_norm)
    evaluator = None
    if datasets.eval is not None and schedule.eval_interval_steps:
        eval_fetcher = Fetcher(datasets.eval, collate, seed)
        evaluator = Evaluator(task, eval_fetcher, schedule, precision, control_group, spec.data.loader_workers)
    loop = Loop(
        place=place,
        seed=seed,
        schedule=schedule,
        task=task,
        loader=loader,
        sampler=sampler,
        stepper=stepper,
        rates=rates,
        optimizer=optimizer,
        control=Control(control_group, host.stop_requested, CAPACITY),
        precision=precision,
        evaluator=evaluator,
        events=EventWriter(layout.metrics_file, assignment.attempt) if place.rank == 0 else None,
        samples=SampleRecord(layout.samples_file(place.rank), assignment.attempt)
        if assignment.record_samples
        else None,
        device=device,
        control_group=control_group,
        first_step=first_step,
    )
    return loop, loader, stepper


def _use_device(assignment: AttemptConfig, gpu: int) -> torch.device:
    deterministic = assignment.job.spec.train.deterministic
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
    if assignment.request.device == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise TrainingFailedError(
            "this rank was given a GPU, but torch sees none: is it a build of torch for the CPU, or is there no driver?"
        )
    device = torch.device("cuda", gpu)
    torch.cuda.set_device(device)
    return device


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
