"""Evaluation over the ranks: each sample exactly once, no padding, no communication until the end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from distrib.job.plan import StepPlan
from distrib.train.control import gather_rows
from distrib.train.data.batches import map_tensors, to_device
from distrib.train.data.loader import Fetcher, iterate
from distrib.train.data.sampler import EpochIndices
from distrib.train.metrics import compute_metrics
from distrib.train.precision import Precision
from distrib.train.randomness import derive_seed, reseed
from distrib.train.task import StepOutput, Task, TaskError


class Evaluator:
    """Evaluates the unwrapped model on the evaluation data, whose positions ⌊r·n/W⌋ … ⌊(r+1)·n/W⌋ belong to rank r.

    Args:
        task: The model, the loss or step, and the metrics.
        fetcher: Fetches the evaluation data.
        schedule: Gives the number of samples and the batch size.
        precision: As in training.
        control: A gloo group of all ranks.
        loader_workers: Processes that load data.
    """

    def __init__(
        self,
        task: Task,
        fetcher: Fetcher,
        schedule: StepPlan,
        precision: Precision,
        control: dist.ProcessGroup,
        loader_workers: int,
    ) -> None:
        self._task = task
        self._fetcher = fetcher
        self._precision = precision
        self._control = control
        self._loader_workers = loader_workers
        rank, world_size, samples = dist.get_rank(control), dist.get_world_size(control), schedule.eval_samples or 0
        mine = range(rank * samples // world_size, (rank + 1) * samples // world_size)
        size = schedule.eval_batch_size
        self._index_lists = [EpochIndices(list(mine[i : i + size]), 0) for i in range(0, len(mine), size)]

    def evaluate(self) -> dict[str, Any]:
        """The mean loss (None where nothing has weight) and every metric over the whole data, on every rank."""
        model = self._task.model
        modes = {module: module.training for module in model.modules()}
        model.eval()
        reseed(derive_seed("eval", self._fetcher.seed, dist.get_rank(self._control)))
        try:
            with torch.no_grad():  # not inference_mode, whose tensors no gradient can be computed for
                loss = self._run(model)
                num_samples = sum(map(len, self._index_lists))
                return {"loss": loss, **compute_metrics(self._task.metrics, num_samples, self._control)}
        finally:
            for module, mode in modes.items():
                module.training = mode
            for metric in self._task.metrics.values():
                metric.reset()

    def _run(self, model: nn.Module) -> float | None:
        device = next(model.parameters()).device
        sums = torch.zeros(2, dtype=torch.float64, device=device)
        for indices, batch in zip(self._index_lists, self._batches(device), strict=True):
            with self._precision.autocast():
                outcome = self._task.run(model, batch)
            weight = len(indices) if outcome.weight is None else outcome.weight
            weight = torch.as_tensor(weight, dtype=torch.float64, device=device)
            loss = torch.where(weight > 0, outcome.loss.detach().double() * weight, 0.0)
            sums += torch.stack([loss, weight])
            self._update_metrics(outcome)
        rows = gather_rows(sums.tolist(), self._control)
        loss_sum, weight_sum = sum(row[0] for row in rows), sum(row[1] for row in rows)
        return loss_sum / weight_sum if weight_sum else None

    def _batches(self, device: torch.device) -> Iterator[Any]:
        pin = device.type == "cuda"
        for batch in iterate(self._fetcher, self._index_lists, self._loader_workers, pin_memory=pin):
            yield to_device(batch, device)

    def _update_metrics(self, outcome: StepOutput) -> None:
        if self._task.metrics and outcome.outputs is None:
            raise TaskError(
                "step: metrics need 'outputs', and mostly 'targets', in the dict that it returns; return "
                '{"loss": …, "outputs": …, "targets": …}'
            )
        for metric in self._task.metrics.values():
            metric.update(*map_tensors((outcome.outputs, outcome.targets), torch.Tensor.detach))
