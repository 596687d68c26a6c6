"""Whether a loss that is not known is a mean over the samples of a batch, tried on outputs that are there already."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from distrib.train.data.batches import map_tensors, tensors_in

_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3}
_COARSE_TOLERANCE = 0.03


def is_mean_over_samples(loss: Callable[..., Any], outputs: Any, targets: Any) -> bool:
    """Whether the loss of a batch is the mean of those of its halves, weighted by their rows.

    Only copies of the loss are called, without gradients, and no random state changes. A loss that is random, or
    outputs that have no common first dimension, count as a mean, since there is nothing to compare.
    """
    sizes = {tensor.shape[0] if tensor.ndim else 0 for tensor in tensors_in((outputs, targets))}
    if len(sizes) != 1 or (num_rows := sizes.pop()) < 2:
        return True
    half = num_rows // 2
    try:
        whole, again, first, second = (
            _value(loss, outputs, targets, part, seed)
            for part, seed in ((slice(None), 0), (slice(None), 1), (slice(half), 0), (slice(half, None), 0))
        )
    except Exception:
        return True
    values = (whole, again, first, second)
    if not all(map(math.isfinite, values)) or whole != again:
        return True
    expected = (half * first + (num_rows - half) * second) / num_rows
    types = {tensor.dtype for tensor in tensors_in(outputs)}
    tolerance = max((_TOLERANCE.get(dtype, _COARSE_TOLERANCE) for dtype in types), default=_COARSE_TOLERANCE)
    return math.isclose(whole, expected, rel_tol=tolerance, abs_tol=1e-6 * max(map(abs, values)))


def _value(loss: Callable[..., Any], outputs: Any, targets: Any, part: slice, seed: int) -> float:
    """The loss of some rows, from a copy of the loss with the random numbers of `seed`."""
    called = copy.deepcopy(loss) if isinstance(loss, nn.Module) else loss
    devices = {tensor.device.index for tensor in tensors_in(outputs) if tensor.device.type == "cuda"}
    cut = map_tensors((outputs, targets), lambda tensor: tensor.detach()[part])
    with torch.no_grad(), torch.random.fork_rng(devices=sorted(devices)):
        torch.manual_seed(seed)
        return float(called(*cut))
