"""The optimizer and its learning-rate schedule, built from the spec."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from distrib.job.plan import StepPlan, with_steps
from distrib.train.resolved_job import ResolvedJob, is_optimizer_class

_CHOICES_OF_IMPLEMENTATION = ("fused", "foreach", "differentiable", "capturable")
_EXACT_IF_FUSED = (torch.optim.Adam, torch.optim.AdamW)


def build_optimizer(resolved: ResolvedJob, step_plan: StepPlan, model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer over the unwrapped model; fused where that is exact and the user chose nothing else."""
    target = with_steps(resolved.job.spec.optimizer, step_plan)
    factory = resolved.optimizer
    if not is_optimizer_class(factory):
        optimizer = factory(model, **target.args)
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise TypeError(
                f"optimizer: {target.target} gave a {type(optimizer).__name__}, not a torch.optim.Optimizer"
            )
        return optimizer
    arguments = dict(target.args)
    if _can_be_fused(factory, arguments, model):
        arguments["fused"] = True
    result: torch.optim.Optimizer = factory(model.named_parameters(), **arguments)
    return result


def _can_be_fused(factory: Any, arguments: dict[str, Any], model: nn.Module) -> bool:
    """Whether torch's fused kernel computes what its plain loop does, so that it may be chosen unasked.

    Only Adam's kernels do in every case that a job can meet. SGD's reads uninitialized momentum after a gradient that
    overflowed fp16 and fails where a parameter gets its first gradient late; Adagrad's refuses sparse gradients. All of
    them walk raw memory, so a parameter must be dense.
    """
    if factory not in _EXACT_IF_FUSED or any(choice in arguments for choice in _CHOICES_OF_IMPLEMENTATION):
        return False
    return all(p.is_floating_point() and p.device.type in ("cpu", "cuda") and _is_dense(p) for p in model.parameters())


def _is_dense(tensor: torch.Tensor) -> bool:
    """Whether a tensor fills its memory without gaps or overlaps, in whatever order of dimensions."""
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True


class SchedulerState:
    """The learning-rate schedule, advanced after each step, epoch or evaluation as the spec says."""

    def __init__(self, resolved: ResolvedJob, step_plan: StepPlan, optimizer: torch.optim.Optimizer) -> None:
        spec = resolved.job.spec.schedule
        self._step_plan = step_plan
        self._every = None if spec is None else spec.every
        self._metric = None if spec is None else spec.metric
        self._scheduler: Any = None
        if spec is not None and resolved.schedule is not None:
            self._scheduler = resolved.schedule(optimizer, **with_steps(spec, step_plan).args)

    def state_dict(self) -> dict[str, Any]:
        """The scheduler's state; empty without one."""
        return {} if self._scheduler is None else dict(self._scheduler.state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        if self._scheduler is not None and state:
            self._scheduler.load_state_dict(state)

    def after_step(self, completed_steps: int) -> None:
        """Advances a schedule by steps or, at an epoch's end, one by epochs."""
        if self._every == "step" or (self._every == "epoch" and self._step_plan.is_end_of_epoch(completed_steps)):
            self._scheduler.step()

    def after_evaluation(self, results: dict[str, Any]) -> None:
        """Advances a schedule by evaluations with its metric."""
        if self._every == "eval" and self._metric is not None:
            self._scheduler.step(results[self._metric])
