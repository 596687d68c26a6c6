"""The optimizer, built from the spec over the model and a loss that has parameters of its own."""

from __future__ import annotations

import contextlib
import fnmatch
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from distrib.errors import DistribError
from distrib.job.step_plan import StepPlan, with_steps
from distrib.train.resolved_job import ResolvedJob, is_optimizer_class, takes_loss

_CHOICES_OF_IMPLEMENTATION = ("fused", "foreach", "differentiable", "capturable")
_EXACT_IF_FUSED = (torch.optim.Adam, torch.optim.AdamW)
_TORCH_OPTIMIZERS = "torch.optim"
_LOSS = "loss"
_MAX_NAMES = 3


class OptimizerError(DistribError):
    """What `optimizer` names gives no optimizer that can train the job's model."""


def build_optimizers(
    resolved: ResolvedJob, step_plan: StepPlan, model: nn.Module, loss: nn.Module | None = None
) -> dict[str, torch.optim.Optimizer]:
    """The job's optimizers by name; fused where that is exact and the user chose no other implementation.

    Args:
        resolved: The job.
        step_plan: Gives the values of `$steps` and `$steps_per_epoch`.
        model: The unwrapped model.
        loss: The loss if it is a module; its parameters are named `loss.…`.

    Raises:
        OptimizerError: One gives no optimizer, or leaves the loss's parameters out; or a parameter does not belong to
            exactly one.
    """
    named = named_parameters(model, loss)
    specs = resolved.job.spec.optimizer_specs
    shares = share_parameters({name: each.patterns for name, each in specs.items()}, named)
    optimizers = {}
    for name, each in specs.items():
        target, factory = with_steps(each.target, step_plan), resolved.optimizers[name]
        if is_optimizer_class(factory):
            arguments = dict(target.args)
            if _can_be_fused(factory, arguments, shares[name].values()):
                arguments["fused"] = True
            optimizers[name] = _instantiated(factory, shares[name], arguments)
        elif each.patterns is not None:
            optimizers[name] = _checked(factory(list(shares[name].items()), **target.args), each.field, target.target)
        else:
            optimizers[name] = _made(factory, target.target, target.args, model, loss)
            _check_has_loss(optimizers[name], target.target, loss)
    return optimizers


def share_parameters(
    patterns: Mapping[str, Sequence[str] | None], named: Mapping[str, nn.Parameter]
) -> dict[str, dict[str, nn.Parameter]]:
    """The parameters of each optimizer by its patterns; None takes all.

    Raises:
        OptimizerError: A pattern matches no parameter, or a parameter belongs to no optimizer or to two.
    """
    shares: dict[str, dict[str, nn.Parameter]] = {}
    owners: dict[str, str] = {}
    for optimizer, each in patterns.items():
        if each is None:
            return {optimizer: dict(named)}
        for pattern in each:
            if not any(fnmatch.fnmatchcase(name, pattern) for name in named):
                known = ", ".join([*named][:_MAX_NAMES])
                raise OptimizerError(
                    f"optimizers.{optimizer}.parameters: '{pattern}' matches no parameter; the first ones are {known}"
                )
        shares[optimizer] = {
            name: parameter for name, parameter in named.items() if any(fnmatch.fnmatchcase(name, p) for p in each)
        }
        for name in shares[optimizer]:
            if name in owners:
                raise OptimizerError(
                    f"optimizers.{optimizer}.parameters: {name} belongs to the optimizer {owners[name]} too; each "
                    "parameter needs exactly one"
                )
            owners[name] = optimizer
    missing = [name for name in named if name not in owners]
    if missing:
        more = f" and {len(missing) - _MAX_NAMES} more" if len(missing) > _MAX_NAMES else ""
        raise OptimizerError(
            f"optimizers: no optimizer has {', '.join(missing[:_MAX_NAMES])}{more}; add a pattern for them to "
            "parameters"
        )
    return shares


def named_parameters(model: nn.Module, loss: nn.Module | None) -> dict[str, nn.Parameter]:
    """The parameters of the model by name, and those of the loss as `loss.…`; tied ones once."""
    named = dict(model.named_parameters())
    known = {id(parameter) for parameter in named.values()}
    others = [] if loss is None else loss.named_parameters(prefix=_LOSS)
    return named | {name: parameter for name, parameter in others if id(parameter) not in known}


def _instantiated(
    factory: Callable[..., torch.optim.Optimizer], named: Mapping[str, nn.Parameter], arguments: Mapping[str, Any]
) -> torch.optim.Optimizer:
    """An optimizer of named parameters, or of bare ones if its class cannot take names, as older ones cannot.

    A class of the job's own may take pairs of name and parameter without noticing that they are no tensors, and then
    sorts none of them by its dimensions. So bare ones are taken, too, if it makes more groups of these.
    """
    try:
        optimizer = factory(list(named.items()), **arguments)
    except Exception as error:
        try:
            return factory(list(named.values()), **arguments)
        except Exception:
            raise error from None
    if str(getattr(factory, "__module__", "")).startswith(_TORCH_OPTIMIZERS):
        return optimizer
    with contextlib.suppress(Exception):
        bare = factory(list(named.values()), **arguments)
        if _num_groups(bare) > _num_groups(optimizer):
            return bare
    return optimizer


def _num_groups(optimizer: torch.optim.Optimizer) -> int:
    return sum(bool(group["params"]) for group in optimizer.param_groups)


def _made(
    factory: Callable[..., Any], name: str, arguments: Mapping[str, Any], model: nn.Module, loss: nn.Module | None
) -> torch.optim.Optimizer:
    """What a function of the model gives, and of the loss if it has a parameter of that name."""
    more = {_LOSS: loss} if takes_loss(factory) and _LOSS not in arguments else {}
    return _checked(factory(model, **arguments, **more), "optimizer", name)


def _checked(optimizer: Any, field: str, name: str) -> torch.optim.Optimizer:
    """`optimizer`, if it is one."""
    if isinstance(optimizer, torch.optim.Optimizer):
        return optimizer
    kind = f"a {type(optimizer).__name__}"
    advice = "return one optimizer"
    if isinstance(optimizer, list | tuple | dict):
        kind += f" of {len(optimizer)}"
        advice = "return one optimizer, with a parameter group for each kind of parameters, or name several: optimizers"
    raise OptimizerError(f"{field}: {name} gave {kind}, not a torch.optim.Optimizer; {advice}")


def _check_has_loss(optimizer: torch.optim.Optimizer, name: str, loss: nn.Module | None) -> None:
    """Refuses an optimizer that leaves out what is to be trained of the loss."""
    taken = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    named = [] if loss is None else list(loss.named_parameters(prefix=_LOSS))
    missing = [name for name, parameter in named if parameter.requires_grad and id(parameter) not in taken]
    if missing:
        more = f" and {len(missing) - _MAX_NAMES} more" if len(missing) > _MAX_NAMES else ""
        raise OptimizerError(
            f"optimizer: {name} leaves out the loss's parameters {', '.join(missing[:_MAX_NAMES])}{more}; give it a "
            "parameter named loss, which gets the loss, and take its parameters too"
        )


def _can_be_fused(factory: Any, arguments: Mapping[str, Any], parameters: Iterable[nn.Parameter]) -> bool:
    """Whether torch's fused kernel computes what its plain loop does, so that it may be chosen unasked.

    Only Adam's kernels do in every case that a job can meet. SGD's reads uninitialized momentum after a gradient that
    overflowed fp16 and fails where a parameter gets its first gradient late; Adagrad's refuses sparse gradients. All of
    them walk raw memory, so a parameter must be dense.
    """
    if factory not in _EXACT_IF_FUSED or any(choice in arguments for choice in _CHOICES_OF_IMPLEMENTATION):
        return False
    return all(p.is_floating_point() and p.device.type in ("cpu", "cuda") and _is_dense(p) for p in parameters)


def _is_dense(tensor: torch.Tensor) -> bool:
    """Whether a tensor fills its memory without gaps or overlaps, in whatever order of dimensions."""
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True
