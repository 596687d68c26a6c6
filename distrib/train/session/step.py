"""A step that drives its own updates with `session.minimize`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from distrib.train.data.loader import StepBatch
from distrib.train.objective.batch_norm import as_stand_in, find_batch_norms
from distrib.train.objective.task import TaskError, check_keys, read_logged, read_step
from distrib.train.rank import Rank
from distrib.train.session.minimize import Slice
from distrib.train.training import Training


@dataclass(frozen=True)
class SessionOutput:
    """What one call of a step with a session gave; see `StepOutput`. The loss is None if there is nothing to report."""

    loss: torch.Tensor | None
    weight: torch.Tensor | float | None
    outputs: Any
    targets: Any
    logged: Mapping[str, Any]


class SessionStep:
    """Calls the job's step once for each optimizer step, with the unwrapped model; see `TrainStep`.

    Args:
        rank: This rank.
        training: What is trained.
    """

    def __init__(self, rank: Rank, training: Training) -> None:
        assert training.session is not None
        self._training = training
        self._session = training.session
        self._device = rank.device
        self._norms = find_batch_norms(training.state.model)
        self._is_first = True
        training.losses.use_weights()

    def run(
        self, batch: StepBatch, *, is_synced: bool = True, on_gradients: Callable[[], object] = lambda: None
    ) -> None:
        """Runs one optimizer step; its updates happen inside.

        Args:
            batch: The batch of the step.
            is_synced: If false, nothing is updated: for measuring, not for training.
            on_gradients: Called at the end.
        """
        (part,), (data,) = batch.micro_batches, batch.batches
        slice_ = Slice(part.num_samples, batch.global_batch_size)
        self._session.begin(slice_, epoch=batch.epoch, is_synced=is_synced)
        model = self._training.state.model
        with self._training.precision.autocast(), as_stand_in(self._norms, part.num_samples == 0):
            result = self._training.task.call_step(model, data)
        output = read_output(result, self._session.minimized)
        self._session.output = output
        self._session.session.log(**output.logged)
        self._check_first(output)
        if output.loss is not None:
            weight = part.num_samples if output.weight is None or not part.num_samples else output.weight
            weight = torch.as_tensor(weight, dtype=torch.float64, device=self._device)
            self._training.losses.add(output.loss.detach(), weight)
        model.zero_grad()
        on_gradients()

    def _check_first(self, output: SessionOutput) -> None:
        """Refuses a step that was taken for one that drives its updates and leaves them to the engine."""
        if self._is_first and not self._session.minimized and output.loss is not None and output.loss.requires_grad:
            raise TaskError(
                "step: has a call of minimize, but returned a loss without calling session.minimize in its first step; "
                "call it in every step, or rename what else is called minimize"
            )
        self._is_first = False


def read_output(result: Any, minimized: list[tuple[torch.Tensor, Any]]) -> SessionOutput:
    """What a step with a session reports: the loss that it returns, or else the sum of those that it has minimized.

    Args:
        result: What the step returned.
        minimized: The losses that it has minimized, with their weights.
    """
    if isinstance(result, torch.Tensor) or (isinstance(result, Mapping) and "loss" in result):
        output = read_step(result)
        return SessionOutput(output.loss, output.weight, output.outputs, output.targets, output.logged)
    if result is not None and not isinstance(result, Mapping):
        raise TaskError(f"step: must return a loss, a dict or None, but returned a {type(result).__name__}")
    loss = torch.stack([loss.double() for loss, _ in minimized]).sum() if minimized else None
    weight = minimized[0][1] if minimized else None
    others = {} if result is None else result
    check_keys(others)
    return SessionOutput(loss, weight, others.get("outputs"), others.get("targets"), read_logged(others))
