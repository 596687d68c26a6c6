"""Evaluation over the ranks: each sample exactly once, no padding, no communication until the end."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from distrib.job.step_plan import StepPlan, part_of
from distrib.train.data.batches import map_tensors, to_device
from distrib.train.data.loader import Fetcher, iterate
from distrib.train.data.sampler import EpochIndices, MicroBatch
from distrib.train.objective.metrics import attributes_of, compute_metrics, counted_outside, value_of
from distrib.train.objective.task import StepOutput, TaskError
from distrib.train.phases import Phase
from distrib.train.process.randomness import derive_seed, reseed
from distrib.train.process.rank_tree import RankTree
from distrib.train.rank import Rank
from distrib.train.session.minimize import Slice
from distrib.train.session.step import SessionOutput, read_output
from distrib.train.training import Training


class Evaluator:
    """Evaluates the unwrapped model on this rank's part of the evaluation data.

    Args:
        rank: This rank.
        training: The model, the loss or step, and the metrics.
        fetcher: Fetches the evaluation data.
        step_plan: The number of samples and the batch size.
    """

    def __init__(self, rank: Rank, training: Training, fetcher: Fetcher, step_plan: StepPlan) -> None:
        self._rank = rank
        self._task = training.task
        self._precision = training.precision
        self._fetcher = fetcher
        self._warnings = training.weighting.warnings
        self._attributes = attributes_of(self._task.metrics) if rank.info.world_size > 1 else None
        self._control = rank.control_group
        self._session = training.session
        self._takes_session = training.task.takes_session
        self._global_batch_size = step_plan.global_batch_size
        first = list(range(min(step_plan.eval_batch_size, step_plan.eval_samples or 0)))
        self._first = MicroBatch(EpochIndices(first, 0), step_plan.eval_batch_size)
        self._batches = _global_batches(step_plan, rank) if self._takes_session else _own_slices(step_plan, rank)

    def evaluate(self) -> dict[str, Any]:
        """The mean loss (None if nothing has weight) and every metric over the whole data, on every rank."""
        reseed(derive_seed("eval", self._fetcher.seed, self._rank.info.rank))
        with self._evaluating():
            sums = self._run(self._batches)
            with self._rank.progress.during(Phase.REDUCE):
                loss_sum, weight_sum = RankTree(self._control).sums(sums)
            loss = loss_sum / weight_sum if weight_sum else None
            num_samples = sum(micro_batch.num_samples for micro_batch in self._batches)
            logs = self._logs()
            self._check_attributes()
            return {"loss": loss, **compute_metrics(self._task.metrics, num_samples, self._control), **logs}

    def _check_attributes(self) -> None:
        """Reports metrics that count in plain attributes, which no rank can merge; once."""
        before, self._attributes = self._attributes, None
        outside = [] if before is None else counted_outside(self._task.metrics, before)
        if outside:
            self._warnings.append(
                f"metrics: {', '.join(outside)} changes with each batch but is no state of its metric, so it has the "
                "samples of one rank only, and the value is wrong with several workers; use add_state"
            )

    def try_batch(self) -> dict[str, Any]:
        """The loss and the metrics of the first evaluation batch, on this rank alone."""
        with self._evaluating():
            loss_sum, weight_sum = self._run([self._first], loader_workers=0)
            values = {name: value_of(metric) for name, metric in self._task.metrics.items()}
            return {"loss": loss_sum / weight_sum if weight_sum else None, **values}

    def copy(self) -> Evaluator:
        """One of copies of the model, the loss and the metrics."""
        other = copy.copy(self)
        other._task, other._session = self._task.copy(), None  # which would keep what is logged
        return other

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        """Puts model and loss into evaluation mode for a while; forgets what metrics have seen afterwards."""
        loss_module = self._task.loss_module
        parts = [self._task.model] if loss_module is None else [self._task.model, loss_module]
        modes = {module: module.training for part in parts for module in part.modules()}
        for part in parts:
            part.eval()
        try:
            with torch.no_grad():  # not inference_mode, whose tensors no gradient can be computed for
                yield
        finally:
            for module, mode in modes.items():
                module.training = mode
            for metric in self._task.metrics.values():
                metric.reset()
            if self._session is not None:
                self._session.session.is_training = True

    def _run(self, batches: list[MicroBatch], loader_workers: int | None = None) -> list[float]:
        """Runs batches and updates the metrics; Σ loss·weight and Σ weight."""
        device = self._rank.device
        sums = torch.zeros(2, dtype=torch.float64, device=device)
        for micro_batch, batch in self._fetch(batches, loader_workers):
            self._rank.progress.enter(Phase.EVALUATION)  # at each batch, which shows that it advances
            output = self._run_batch(micro_batch, batch)
            if output is None or output.loss is None:
                continue
            weight = torch.as_tensor(_weight(output, micro_batch), dtype=torch.float64, device=device)
            loss = output.loss.detach().double()
            if self._task.form.is_sum:  # as over a training step's batch, whatever the size of this one
                loss = loss * (self._global_batch_size / micro_batch.num_samples)
            loss = torch.where(weight > 0, loss * weight, 0.0)
            sums += torch.stack([loss, weight])
        return sums.tolist()

    def _run_batch(self, micro_batch: MicroBatch, batch: Any) -> StepOutput | SessionOutput | None:
        """Runs a batch and updates the metrics; None for a stand-in."""
        model = self._task.model
        if self._session is not None:
            self._session.begin(Slice(micro_batch.num_samples, self._global_batch_size), is_training=False)
        with self._precision.autocast():
            if not self._task.drives:
                output: StepOutput | SessionOutput = self._task.run(model, batch)
            else:
                assert self._session is not None
                output = read_output(self._task.call_step(model, batch), self._session.minimized)
        if self._session is not None:
            self._session.session.log(**output.logged)
        if not micro_batch.num_samples:
            return None
        self._update_metrics(output)
        return output

    def _logs(self) -> dict[str, float | None]:
        """What the step has logged, over all ranks."""
        if self._session is None:
            return {}
        logs = self._session.logs(is_training=False)
        logs.end_window(0)
        return logs.flush(self._control)[0]

    def _fetch(self, batches: list[MicroBatch], loader_workers: int | None) -> Iterator[tuple[MicroBatch, Any]]:
        device = self._rank.device
        num_workers = self._rank.settings.loader_workers if loader_workers is None else loader_workers
        for micro_batch, batch in iterate(self._fetcher, batches, num_workers, pin_memory=device.type == "cuda"):
            yield micro_batch, to_device(batch, device)

    def _update_metrics(self, output: StepOutput | SessionOutput) -> None:
        if self._task.metrics and output.outputs is None:
            raise TaskError(
                "step: metrics need 'outputs', and mostly 'targets', in the dict that it returns; return "
                '{"loss": …, "outputs": …, "targets": …}'
            )
        for metric in self._task.metrics.values():
            metric.update(*map_tensors((output.outputs, output.targets), torch.Tensor.detach))


def _weight(output: StepOutput | SessionOutput, micro_batch: MicroBatch) -> torch.Tensor | float:
    """What the loss of a batch is a mean over."""
    if output.weight is not None:
        return output.weight
    if isinstance(output, SessionOutput) or output.count is None:
        return micro_batch.num_samples
    return output.count()


def _own_slices(step_plan: StepPlan, rank: Rank) -> list[MicroBatch]:
    """This rank's part of the data, in batches; the ranks may have different numbers of them."""
    mine = part_of(step_plan.eval_samples or 0, rank.info.rank, rank.info.world_size)
    size = step_plan.eval_batch_size
    slices = [list(mine[start : start + size]) for start in range(0, len(mine), size)]
    return [MicroBatch(EpochIndices(indices, 0), len(indices)) for indices in slices]


def _global_batches(step_plan: StepPlan, rank: Rank) -> list[MicroBatch]:
    """This rank's part of each global batch, as in training: equally many on all ranks."""
    samples, size = range(step_plan.eval_samples or 0), step_plan.eval_global_batch_size
    batches = []
    for start in range(0, len(samples), size):
        whole = samples[start : start + size]
        mine = part_of(len(whole), rank.info.rank, rank.info.world_size)
        indices = list(whole[mine.start : mine.stop])
        batches.append(MicroBatch(EpochIndices(indices or [whole[0]], 0), len(indices)))
    return batches
