"""Why a loss of torch refuses what the model returns or the dataset gives, in terms of the job."""

from __future__ import annotations

from typing import Any

import torch

from distrib.compat.messages import is_broken_cuda, is_lost_connection
from distrib.train.advice import advice_for
from distrib.train.data.shapes import shapes_of
from distrib.train.process.tracebacks import is_raised_by_torch, user_frames

_ERRORS = (TypeError, ValueError, IndexError, AttributeError)
_CLASS_LOSSES = ("crossentropy", "cross_entropy", "nll")
"""Parts of the names of losses that take class indices."""


def refusal(error: Exception, loss_name: str, outputs: Any, targets: Any) -> str | None:
    """What does not fit the loss, and what to change; None if the error is not about its arguments.

    Args:
        error: What the loss raised. An error with frames of the user's code explains itself and is left as it is.
        loss_name: The loss as the job names it.
        outputs: What the model returned.
        targets: The targets of the batch.
    """
    if user_frames(error) is not None or not _is_about_arguments(error):
        return None
    if not isinstance(outputs, torch.Tensor):
        form = f"a {type(outputs).__name__}: {shapes_of(outputs)}"
        return (
            f"{loss_name} needs a tensor, but the model returns {form}; write a step: that computes the loss from it, "
            "or let the model return the tensor alone"
        )
    if not isinstance(targets, torch.Tensor):
        form = f"a {type(targets).__name__}: {shapes_of(targets)}"
        advice = "write a step: that computes the loss from them"
        if _is_text(targets):
            form, advice = (
                f"text, such as {_first(targets)!r}",
                "return numbers from the dataset, such as class indices",
            )
        return f"{loss_name} needs a tensor, but the targets of a batch are {form}; {advice}"
    facts = f"the model returns {shapes_of(outputs)} and the targets are {shapes_of(targets)}{_range_of(targets)}"
    advice = _advice(error, loss_name, outputs, targets)
    return f"{loss_name} raised {type(error).__name__}: {str(error).rstrip('.')}; {facts}{advice}"


def _is_about_arguments(error: Exception) -> bool:
    """Whether it is one that torch's functions raise about their arguments: no lost peer, full memory or broken GPU."""
    if isinstance(error, _ERRORS):
        return True
    text = str(error)
    is_other = is_raised_by_torch(error) or is_lost_connection(text) or is_broken_cuda(text)
    return type(error) is RuntimeError and not is_other and advice_for("RuntimeError", text) is None


def _is_text(targets: Any) -> bool:
    return isinstance(targets, str) or (isinstance(targets, list | tuple) and any(isinstance(i, str) for i in targets))


def _first(targets: Any) -> str:
    return targets if isinstance(targets, str) else next(item for item in targets if isinstance(item, str))


def _range_of(targets: torch.Tensor) -> str:
    """The smallest and the largest class index; of tensors on the CPU, as others may no longer be readable."""
    if targets.device.type != "cpu" or targets.is_floating_point() or targets.is_complex() or not targets.numel():
        return ""
    return f" from {targets.min().item()} to {targets.max().item()}"


def _advice(error: Exception, loss_name: str, outputs: torch.Tensor, targets: torch.Tensor) -> str:
    """What to change, if shapes and types show it."""
    if targets.is_floating_point() or targets.ndim != outputs.ndim - 1 or outputs.ndim < 2:
        return ""
    if isinstance(error, IndexError):
        return f"; {outputs.shape[1]} outputs are for the class indices 0 to {outputs.shape[1] - 1}"
    if any(name in loss_name.lower() for name in _CLASS_LOSSES):
        return ""
    return "; the targets look like class indices, which torch.nn:CrossEntropyLoss takes"
