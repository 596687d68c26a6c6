"""What the losses of torch are means over: not always the samples.

Cross entropy divides by the number of targets that are not ignored, or by the sum of their class weights; a loss with
`reduction="sum"` does not divide at all. Only with these weights do gradients of slices add up to the global batch's.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

_DEFAULT_IGNORED = -100
_CLASS_LOSSES = (nn.CrossEntropyLoss, nn.NLLLoss)
_CLASS_FUNCTIONS = (functional.cross_entropy, functional.nll_loss)
_MODULE_LOSSES = "torch.nn.modules.loss"
_FUNCTIONS = "torch.nn.functional"


@dataclass(frozen=True)
class LossForm:
    """What is known of a loss.

    Attributes:
        is_known: Whether it is one of torch's, whose value is what this says.
        is_sum: Whether it is a sum over the samples, not a mean.
        count: The weight of a batch, from the outputs and targets; None where it is the number of samples.
        ignored: The target that is ignored; None where none is.
        is_explicit: Whether the job itself names class weights or an ignored target, so that weights must be expected.
    """

    is_known: bool = False
    is_sum: bool = False
    count: Callable[[Any, Any], torch.Tensor] | None = None
    ignored: int | None = None
    is_explicit: bool = False

    def has_ignored(self, targets: Any) -> bool:
        """Whether a target is ignored; waits for the device."""
        if self.ignored is None or not _are_classes(targets):
            return False
        return bool((targets == self.ignored).any())


def loss_form(loss: Any) -> LossForm:
    """The form of a loss: a module, or a function, perhaps with arguments bound."""
    if isinstance(loss, nn.Module):
        return _form_of_module(loss)
    if isinstance(loss, functools.partial):
        return _form_of_function(loss.func, loss.keywords)
    return _form_of_function(loss, {})


def _form_of_module(loss: nn.Module) -> LossForm:
    """A loss of torch, or of a class derived from one that computes no differently."""
    base: Any = next((kind for kind in type(loss).__mro__ if kind.__module__ == _MODULE_LOSSES), None)
    if base is None or type(loss).forward is not base.forward:
        return LossForm()
    return _form(
        isinstance(loss, _CLASS_LOSSES),
        getattr(loss, "reduction", "mean"),
        getattr(loss, "weight", None),
        getattr(loss, "ignore_index", _DEFAULT_IGNORED),
    )


def _form_of_function(function: Any, arguments: Mapping[str, Any]) -> LossForm:
    if getattr(function, "__module__", None) != _FUNCTIONS:
        return LossForm()
    return _form(
        function in _CLASS_FUNCTIONS,
        arguments.get("reduction", "mean"),
        arguments.get("weight"),
        arguments.get("ignore_index", _DEFAULT_IGNORED),
    )


def _form(is_of_classes: bool, reduction: str, weight: torch.Tensor | None, ignored: int) -> LossForm:
    if reduction == "sum":
        return LossForm(is_known=True, is_sum=True)
    if not is_of_classes or reduction != "mean":
        return LossForm(is_known=True)
    return LossForm(
        is_known=True,
        count=functools.partial(_class_weight, weight, ignored),
        ignored=ignored,
        is_explicit=weight is not None or ignored != _DEFAULT_IGNORED,
    )


def _class_weight(weight: torch.Tensor | None, ignored: int, outputs: Any, targets: Any) -> torch.Tensor:
    """What cross entropy divides by: targets that count, or their class weights, [] in float64.

    Targets that are probabilities count all, whatever the class weights.
    """
    if not _are_classes(targets):
        num_classes = outputs.shape[1] if outputs.ndim > 1 else outputs.shape[0]
        return torch.tensor(outputs.numel() / num_classes, dtype=torch.float64, device=outputs.device)
    counted = targets != ignored
    if weight is None:
        return torch.sum(counted).double()
    weights = weight.detach().double()[torch.where(counted, targets, 0)]
    return torch.where(counted, weights, 0.0).sum()


def _are_classes(targets: Any) -> bool:
    return isinstance(targets, torch.Tensor) and not targets.is_floating_point()
