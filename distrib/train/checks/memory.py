"""What a rank needs in memory, counted without allocating it."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import torch
from torch import nn

from distrib.job.plan import Memory
from distrib.job.step_plan import StepPlan
from distrib.train.optimization.optimizer import build_optimizers
from distrib.train.resolved_job import ResolvedJob
from distrib.train.settings import TrainingSettings
from distrib.train.strategy.base import StrategySettings
from distrib.train.strategy.registry import make_strategy


def estimate_memory(resolved: ResolvedJob, step_plan: StepPlan) -> Memory | None:
    """Builds the model on the meta device and counts; None where it cannot be built there."""
    try:
        with torch.device("meta"):
            model = resolved.model(**resolved.job.spec.model.args)
    except Exception:
        return None
    if not isinstance(model, nn.Module):
        return None
    parameters = list(model.parameters())
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    whole = Memory(
        num_parameters=sum(parameter.numel() for parameter in parameters),
        weights_bytes=_bytes([*parameters, *model.buffers()]),
        gradients_bytes=_bytes(trained),
        optimizer_bytes=_optimizer_bytes(resolved, step_plan, model),
    )
    settings = StrategySettings(
        TrainingSettings.of_job(resolved.job.spec), 0, step_plan.world_size, torch.device("cpu")
    )
    return make_strategy(settings).memory(whole)


def _optimizer_bytes(resolved: ResolvedJob, step_plan: StepPlan, model: nn.Module) -> int | None:
    """The state that the optimizers hold after a first step; None if it cannot be built on the meta device."""
    with contextlib.suppress(Exception):
        optimizers = build_optimizers(resolved, step_plan, model)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.grad = torch.empty_like(parameter)
        for optimizer in optimizers.values():
            optimizer.step()
        states = [state for optimizer in optimizers.values() for state in optimizer.state.values()]
        tensors = [value for state in states for value in state.values() if isinstance(value, torch.Tensor)]
        return _bytes(tensors)
    return None


def _bytes(tensors: Sequence[torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
