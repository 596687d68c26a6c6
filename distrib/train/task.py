"""The task: the model, how a batch becomes a loss, and the metrics."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from distrib.errors import DistribError
from distrib.job.spec import JobSpec
from distrib.train.randomness import reseed
from distrib.train.resolved_job import ResolvedJob


class TaskError(DistribError):
    """The user's model, loss or step gave something that training cannot use."""


@dataclass(frozen=True)
class StepOutput:
    """What one forward pass gave.

    Attributes:
        loss: A scalar tensor: the mean over what `weight` counts.
        weight: What the loss is a mean over, as a number or scalar tensor; None where it is the samples.
        outputs: What metrics read as predictions.
        targets: What metrics compare them with.
    """

    loss: torch.Tensor
    weight: torch.Tensor | float | None
    outputs: Any = None
    targets: Any = None


class Task:
    """The unwrapped model on its device, the loss or step, and the metrics."""

    def __init__(self, resolved: ResolvedJob, device: torch.device) -> None:
        spec = resolved.job.spec
        self.model: nn.Module = build_model(spec, resolved.model).to(device)
        self._loss = None
        self._step = None
        if resolved.loss is not None and spec.loss is not None:
            if isinstance(resolved.loss, type):
                self._loss = resolved.loss(**spec.loss.args)
                if isinstance(self._loss, nn.Module):
                    self._loss.to(device)
            else:
                self._loss = functools.partial(resolved.loss, **spec.loss.args)
        if resolved.step is not None and spec.step is not None:
            self._step = functools.partial(resolved.step, **spec.step.args)
        self.metrics: dict[str, Any] = {
            name: metric(**spec.metrics[name].args).to(device) for name, metric in resolved.metrics.items()
        }

    def run(self, model: nn.Module, batch: Any) -> StepOutput:
        """Runs `batch` through `model` (wrapped or not).

        Raises:
            TaskError: The batch or the result has not the form that the spec's `loss` or `step` promises.
        """
        if self._step is not None:
            return _read_step(self._step(model, batch))
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            raise TaskError(
                f"loss: needs batches of (inputs, targets), but the dataset gives {_form(batch)}; "
                "use step: to say how such a batch becomes a loss"
            )
        inputs, targets = batch
        outputs = model(**inputs) if isinstance(inputs, Mapping) else model(inputs)
        assert self._loss is not None
        return StepOutput(_scalar(self._loss(outputs, targets), "loss"), None, outputs, targets)


def build_model(spec: JobSpec, factory: Callable[..., Any]) -> nn.Module:
    """The job's model as its own code makes it, on CPU; the same weights in every process.

    Raises:
        TaskError: It is no module.
    """
    reseed(spec.train.seed)
    model = factory(**spec.model.args)
    if not isinstance(model, nn.Module):
        raise TaskError(f"model: {spec.model.target} gave a {type(model).__name__}, not a torch.nn.Module")
    return model


def _form(batch: Any) -> str:
    return (
        f"a {type(batch).__name__} of {len(batch)}" if isinstance(batch, tuple | list) else f"a {type(batch).__name__}"
    )


def _scalar(value: Any, source: str) -> torch.Tensor:
    if not isinstance(value, torch.Tensor) or value.numel() != 1:
        form = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__
        raise TaskError(f"{source}: must give a scalar tensor, the mean loss, but gave {form}; reduce it to its mean")
    return value.reshape(())


def _read_step(result: Any) -> StepOutput:
    if not isinstance(result, Mapping):
        return StepOutput(_scalar(result, "step"), None)
    if "loss" not in result:
        raise TaskError(f"step: the dict that it returns has no 'loss'; its keys are {', '.join(map(str, result))}")
    weight = result.get("weight")
    if isinstance(weight, torch.Tensor):
        weight = weight.detach().reshape(())
    return StepOutput(_scalar(result["loss"], "step"), weight, result.get("outputs"), result.get("targets"))
