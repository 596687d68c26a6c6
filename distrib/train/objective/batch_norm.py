"""BatchNorm, which computes its statistics from the rank's own samples."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from distrib.job.step_plan import StepPlan


@contextmanager
def as_stand_in(norms: list[nn.Module], is_stand_in: bool) -> Iterator[None]:
    """Around the forward pass of a sample that does not count: it leaves the statistics of `norms` alone."""
    silenced = [norm for norm in norms if is_stand_in and norm.training]
    for norm in silenced:
        norm.training = False
    try:
        yield
    finally:
        for norm in silenced:
            norm.training = True


def find_batch_norms(model: nn.Module) -> list[nn.Module]:
    """The layers that normalize by the statistics of the rank's own samples."""
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    return [part for part in model.modules() if isinstance(part, kinds)]


def batch_norm_warning(model: nn.Module, step_plan: StepPlan) -> str | None:
    """A warning if BatchNorm would compute statistics from a single sample, or None."""
    if step_plan.smallest_micro_batch > 1 or not find_batch_norms(model):
        return None
    return (
        "the model has BatchNorm, and some rank computes its statistics from a single sample: torch refuses that if "
        "the normalized input has no other dimensions; use a larger batch_size, fewer workers or less accumulation"
    )
