"""The program of a rank: the same under every launcher."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import torch.distributed as dist

from distrib.compat.pytorch import dynamo
from distrib.job.spec.job import JobSpec
from distrib.job.spec.resources import Best
from distrib.job.step_plan import StepPlan, make_step_plan
from distrib.job.target import add_import_paths
from distrib.runs.storage.open import open_rank
from distrib.runs.storage.protocols import RankStorage
from distrib.train.boundary import StepBoundary
from distrib.train.checkpoint.best import BestWeights
from distrib.train.checkpoint.checkpointer import Checkpointer
from distrib.train.checkpoint.final_weights import save_final_weights
from distrib.train.checkpoint.find import find_checkpoint
from distrib.train.checkpoint.saving import Saving
from distrib.train.context import AttemptConfig, RankContext
from distrib.train.control import Control, ExchangeInterval
from distrib.train.data.loader import Fetcher, StepLoader, loader_warnings
from distrib.train.data.order_check import OrderCheck
from distrib.train.data.sample_record import SampleCounter
from distrib.train.data.sampler import GlobalBatchSampler
from distrib.train.failure import Failure
from distrib.train.health.alike import check_datasets
from distrib.train.health.rank_warnings import RankWarnings
from distrib.train.health.spot_check import check_samples
from distrib.train.loop import Loop
from distrib.train.objective.batch_norm import batch_norm_warning
from distrib.train.objective.evaluation import Evaluator
from distrib.train.objective.loss_accumulator import CAPACITY
from distrib.train.optimization.step import OptimizerStep, TrainStep
from distrib.train.phases import Phase
from distrib.train.process.handles import Handles
from distrib.train.process.lifetime import temporary_files_removed
from distrib.train.process.process_groups import long_timeout
from distrib.train.process.rank_tree import RankTree
from distrib.train.rank import Rank
from distrib.train.records import Records
from distrib.train.resolved_job import Datasets, ResolvedJob
from distrib.train.session.step import SessionStep
from distrib.train.settings import TrainingSettings
from distrib.train.training import Training, build_training


@dataclass(frozen=True)
class RankResult:
    """How a rank ended: `finished`, `stopped` at an agreed step, or `failed`."""

    status: str
    failure: Failure | None = None


def main(config: AttemptConfig, context: RankContext, datasets: Datasets | None = None) -> RankResult:
    """Trains as one rank; an error is written for the launcher and returned, never raised.

    Args:
        config: What all ranks have in common.
        context: The launcher.
        datasets: The job's datasets if the launcher has already built them in this process.
    """
    info = context.rank_info
    storage = open_rank(config.run_location, info.rank, config.attempt, config.lease)
    warnings = RankWarnings(info.rank == 0)
    try:
        with temporary_files_removed(config.job.spec.data.loader_workers), warnings.collecting():
            is_finished = _run(config, context, datasets, storage, warnings)
    except BaseException as error:
        failure = Failure.of(error, info, context.progress.position)
        if storage.may_write:
            failure.write(storage.layout.rank_error(info.rank))
        result = RankResult("failed", failure)
    else:
        result = RankResult("finished" if is_finished else "stopped")
    sys.stdout.flush()
    sys.stderr.flush()
    storage.close(has_failed=result.failure is not None)
    return result


def _run(
    config: AttemptConfig,
    context: RankContext,
    datasets: Datasets | None,
    storage: RankStorage,
    found_warnings: RankWarnings,
) -> bool:
    """Builds the parts of a rank and trains, or measures, with them; returns whether it came to the end."""
    dynamo.install()
    add_import_paths(config.job, config.working_directory)
    spec = config.job.spec
    settings = TrainingSettings.of_job(spec, record_samples=config.record_samples)
    rank = Rank.join(config, settings, context, storage)
    before = Handles.now()
    resolved = ResolvedJob.resolve(config.job)
    datasets = datasets or resolved.build_datasets()
    findings = loader_warnings(spec.data.loader_workers, before)
    facts = datasets.facts
    check_datasets(facts, RankTree(rank.control_group))
    if config.measurement is None:
        findings += check_samples(rank, datasets.train, is_shareable=not Handles.now().has_connected_since(before))
    step_plan = make_step_plan(spec, facts, rank.info.world_size)
    stored, damage = find_checkpoint(rank)
    training = build_training(rank, resolved, step_plan, stored)
    loader = _make_loader(rank, resolved, datasets, step_plan, training.state.completed_steps)
    step: OptimizerStep = TrainStep(rank, training, step_plan)
    if training.task.drives:
        step = SessionStep(rank, training)
    if config.measurement is not None:
        from distrib.train.profiler import StepProfiler

        return StepProfiler(rank, config.measurement, training, step_plan, loader, step).run()
    if training.session is None:  # with one, the job's code may change the dataset between two steps
        rank.times.meanwhile(loader.fetch_while_waiting)
    records = Records(rank, step_plan, _count_samples(training, step_plan), warnings=found_warnings)
    saving = _make_saving(rank, spec.checkpoint.best, training, step_plan, records)
    evaluator = _make_evaluator(rank, training, resolved, datasets, step_plan)
    interval = ExchangeInterval(CAPACITY, config.request.grace_seconds)
    control = Control(rank.control_group, context, interval, config.deadline)
    boundary = StepBoundary(
        rank, training, step_plan, control=control, saving=saving, evaluator=evaluator, records=records
    )
    training.state.end_restoring()
    if saving.is_enabled:
        training.state.check_savable()
    if training.state.completed_steps == 0:
        _try_out(rank, spec, training, evaluator)
    storage.start()
    warnings = [*_warnings(training, step_plan), *findings, *damage]
    if boundary.is_finished:
        for message in warnings:
            records.warn(training.state.completed_steps, message)
    else:
        for batch in Loop(rank, loader, boundary, records, warnings).steps():
            step.run(batch)
    _end(rank, training, records, is_finished=boundary.is_finished)
    return boundary.is_finished


def _end(rank: Rank, training: Training, records: Records, *, is_finished: bool) -> None:
    """Writes what a run leaves behind: the final weights, if it is finished, and the last records."""
    rank.progress.enter(Phase.CHECKPOINT)
    if is_finished:
        averages = None if training.session is None else training.session.callbacks.averages
        save_final_weights(rank, training.state, training.state.model, averages)
    records.end()


def _make_loader(
    rank: Rank, resolved: ResolvedJob, datasets: Datasets, step_plan: StepPlan, first_step: int
) -> StepLoader:
    spec = resolved.job.spec
    sampler = GlobalBatchSampler(
        datasets.train,
        datasets.order,
        num_replicas=rank.info.world_size,
        rank=rank.info.rank,
        accumulate=spec.train.accumulate,
    )
    fetcher = Fetcher(datasets.train, resolved.bound_collate(), spec.train.seed)
    check = OrderCheck(datasets.order, rank.control_group)
    return StepLoader(fetcher, sampler, step_plan, rank.device, spec.data.loader_workers, first_step, check)


def _count_samples(training: Training, step_plan: StepPlan) -> SampleCounter | None:
    """Counts samples, as part of checkpoints, if an order of the job's own decides how many a step has."""
    if step_plan.order is None:
        return None
    counter = SampleCounter(training.state.completed_steps)
    training.state.register("samples", counter)
    return counter


def _make_saving(
    rank: Rank, best_spec: Best | None, training: Training, step_plan: StepPlan, records: Records
) -> Saving:
    """What saves checkpoints and best weights; registers the best value."""
    checkpointer = best = None
    if step_plan.is_ever_saved:
        group = dist.new_group(backend="gloo", timeout=long_timeout(rank.config.request))
        checkpointer = Checkpointer(rank, training.state, group, records)
    if best_spec is not None:
        best = BestWeights(best_spec, rank)
        training.state.register("best", best)
    return Saving(checkpointer, best, step_plan, records, rank.control_group, rank.progress)


def _make_evaluator(
    rank: Rank, training: Training, resolved: ResolvedJob, datasets: Datasets, step_plan: StepPlan
) -> Evaluator | None:
    if datasets.eval is None or not step_plan.is_ever_evaluated:
        return None
    fetcher = Fetcher(datasets.eval, resolved.bound_collate(), rank.settings.seed)
    return Evaluator(rank, training, fetcher, step_plan)


def _try_out(rank: Rank, spec: JobSpec, training: Training, evaluator: Evaluator | None) -> None:
    """Finds before the first step what would fail at the first evaluation."""
    from distrib.train.checks.dry_run import try_evaluation

    if evaluator is not None and rank.is_first and not training.task.takes_session:  # a session would communicate
        best = spec.checkpoint.best
        schedules = [each.schedule for each in spec.optimizer_specs.values()]
        needed = [None if each is None else each.metric for each in (best, *schedules)]
        try_evaluation(evaluator, rank.device, [name for name in needed if name is not None])


def _warnings(training: Training, step_plan: StepPlan) -> list[str]:
    """What is to be reported of the model at the start."""
    batch_norm = batch_norm_warning(training.state.model, step_plan)
    return [*training.task.notices, *training.schedules.warnings, *([] if batch_norm is None else [batch_norm])]
