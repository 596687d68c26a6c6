"""Evaluation over the ranks: each sample exactly once, no padding, no communication until the end."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from distrib.job.plan import Schedule
from distrib.train.batches import map_tensors
from distrib.train.control import gather_rows
from distrib.train.data import Fetcher, iterate
from distrib.train.precision import Precision
from distrib.train.randomness import derive_seed, reseed
from distrib.train.sampler import EpochIndices
from distrib.train.task import Outcome, Task


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
        schedule: Schedule,
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
        for metric in task.metrics.values():
            self._share_states_of(metric)

    def evaluate(self) -> dict[str, Any]:
        """The mean loss (None where nothing has weight) and every metric over the whole data, on every rank."""
        model = self._task.model
        modes = {module: module.training for module in model.modules()}
        model.eval()
        reseed(derive_seed("eval", self._fetcher.seed, dist.get_rank(self._control)))
        try:
            with torch.inference_mode():
                loss = self._run(model)
                return {"loss": loss, **{name: _compute(metric) for name, metric in self._task.metrics.items()}}
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
            loss = torch.where(weight > 0, outcome.loss.double() * weight, 0.0)
            sums += torch.stack([loss, weight])
            self._update_metrics(outcome)
        rows = gather_rows(sums.tolist(), self._control)
        loss_sum, weight_sum = sum(row[0] for row in rows), sum(row[1] for row in rows)
        return loss_sum / weight_sum if weight_sum else None

    def _batches(self, device: torch.device) -> Iterator[Any]:
        pin = device.type == "cuda"
        for batch in iterate(self._fetcher, self._index_lists, self._loader_workers, pin_memory=pin):
            yield map_tensors(batch, lambda tensor: tensor.to(device, non_blocking=True))

    def _update_metrics(self, outcome: Outcome) -> None:
        for metric in self._task.metrics.values():
            metric.update(outcome.outputs, outcome.targets)

    def _share_states_of(self, metric: Any) -> None:
        """Makes a torchmetrics metric, and any inside it, gather its states over the control group."""
        for part in metric.modules():
            if hasattr(part, "dist_sync_fn"):
                part.dist_sync_fn = self._gather
                part.distributed_available_fn = lambda: dist.get_world_size(self._control) > 1

    def _gather(self, state: torch.Tensor, group: object = None) -> list[torch.Tensor]:
        """A state of every rank, in the order of ranks; one without samples takes the others' type and shape."""
        states: list[torch.Tensor] = [state] * dist.get_world_size(self._control)
        dist.all_gather_object(states, state.detach().cpu(), group=self._control)
        filled = next((other for other in states if other.numel()), states[0])
        return [(other if other.numel() else filled[:0] if filled.ndim else other).to(state.device) for other in states]


def _compute(metric: Any) -> Any:
    """A metric's value as plain numbers."""
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message=r".*`compute` method of metric .* was called before", module="torchmetrics"
        )
        value = metric.compute()
    return _plain(value)


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.item() if value.numel() == 1 else value.tolist()
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
