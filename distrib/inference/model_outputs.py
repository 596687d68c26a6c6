"""Runs a model on synthetic inputs and compares the outputs of two models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from distrib.errors import InferenceError

if TYPE_CHECKING:
    import torch
    from torch import nn


def call(model: nn.Module, tensors: Mapping[str, torch.Tensor], is_named: bool) -> list[torch.Tensor]:
    """The tensors that a model returns, in order."""
    import torch

    from distrib.compat.pytorch.tensors import tensors_in

    try:
        with torch.no_grad():
            outputs = model(**tensors) if is_named else model(*tensors.values())
    except Exception as error:
        raise InferenceError(
            f"the model fails on synthetic inputs with the signature in run.json: {type(error).__name__}: {error}"
        ) from error
    return tensors_in(outputs)


def largest_difference(
    ours: Sequence[torch.Tensor], theirs: Sequence[torch.Tensor], rows: int, *, is_exact: bool
) -> float:
    """The largest difference between the outputs of two models.

    Raises:
        InferenceError: They differ by more than rounding, or at all if `is_exact`.
    """
    import torch

    largest = 0.0
    try:
        assert len(ours) == len(theirs), f"{len(theirs)} outputs instead of {len(ours)}"
        for our, their in zip(ours, theirs, strict=True):
            zero = 0.0 if is_exact else None  # None: torch's default tolerance for the dtype
            torch.testing.assert_close(their, our, equal_nan=True, rtol=zero, atol=zero)
            if our.numel() and our.is_floating_point():
                difference = (their.double() - our.double()).abs().nan_to_num(0.0)
                largest = max(largest, float(difference.max()))
    except AssertionError as error:
        reason = " ".join(str(error).split())
        raise InferenceError(
            f"the exported model gives other outputs for {rows} rows: {reason}; nothing was written"
        ) from None
    return largest
