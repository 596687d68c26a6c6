"""The losses of the steps since ranks last exchanged, kept on the device until then."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import torch

CAPACITY = 4096
"""The most steps between two exchanges."""


@dataclass
class LogWindow:
    """The steps that one train event reports."""

    step: int = 0
    time: float = 0.0
    num_steps: int = 0
    num_samples: int = 0
    batch_sizes: Counter[int] = field(default_factory=Counter)
    seconds: float = 0.0
    data_seconds: float = 0.0
    learning_rate: float | dict[str, float] = 0.0
    loss_sum: float = 0.0
    weight_sum: float = 0.0


@dataclass
class FlushedLosses:
    """This rank's losses since the last exchange.

    Attributes:
        windows: The windows that have ended.
        non_finite_step: The first global step, from 1, whose loss is not finite; None if there is none.
        weightless_steps: The number of steps whose weight over all ranks was 0.
    """

    windows: list[LogWindow]
    non_finite_step: int | None
    weightless_steps: int


@dataclass
class _Steps:
    sizes: list[float] = field(default_factory=list)
    ends: list[LogWindow | None] = field(default_factory=list)


class LossAccumulator:
    """Sums this rank's share of each step's loss, Σ loss·weight and Σ weight, without waiting for the device.

    Args:
        device: Where losses are computed.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._is_weighted = False
        self._losses = torch.zeros(CAPACITY, dtype=torch.float64, device=device)
        self._weights = torch.zeros(0, dtype=torch.float64, device=device)
        self._totals = torch.zeros(0, dtype=torch.float64, device=device)
        self._steps = _Steps()
        self._size = 0.0
        self._open = LogWindow()
        self._closed: list[LogWindow] = []
        self._carried = (0.0, 0.0)

    def use_weights(self) -> None:
        """From now on weights are those that the user's step gives, not numbers of samples; call it before `add`."""
        self._is_weighted = True
        self._weights = torch.zeros(CAPACITY, dtype=torch.float64, device=self._device)
        self._totals = torch.ones(CAPACITY, dtype=torch.float64, device=self._device)

    def add(self, loss: torch.Tensor, weight: torch.Tensor | float) -> None:
        """Adds one micro-batch to the current step; a loss of weight 0 does not count, even if it is NaN."""
        row = len(self._steps.sizes)
        if isinstance(weight, torch.Tensor):
            self._losses[row].add_(torch.where(weight > 0, loss * weight, 0.0))
            self._weights[row].add_(weight)
        elif weight > 0:
            self._losses[row].add_(loss, alpha=weight)
            self._size += weight

    def add_total(self, weight: torch.Tensor) -> None:
        """Sets the current step's weight over all ranks."""
        self._totals[len(self._steps.sizes)].copy_(weight)

    def end_step(self, num_samples: int, seconds: float, data_seconds: float) -> None:
        """Ends the current step.

        Args:
            num_samples: Samples of the step's global batch.
            seconds: How long the step took, loading included.
            data_seconds: How long it waited for data.
        """
        self._steps.sizes.append(self._size)
        self._steps.ends.append(None)
        self._size = 0.0
        window = self._open
        window.num_steps += 1
        window.num_samples += num_samples
        window.batch_sizes[num_samples] += 1
        window.seconds += seconds
        window.data_seconds += data_seconds

    def end_window(self, step: int, time: float, learning_rate: float | dict[str, float]) -> None:
        """Ends the window of the next train event with the step that has just ended, global step `step`."""
        self._open.step, self._open.time, self._open.learning_rate = step, time, learning_rate
        if self._steps.ends:
            self._steps.ends[-1] = self._open
        else:  # the step has been flushed already
            self._open.loss_sum, self._open.weight_sum = self._carried
            self._carried = (0.0, 0.0)
            self._closed.append(self._open)
        self._open = LogWindow()

    def flush(self, completed_steps: int) -> FlushedLosses:
        """Reads all steps since the last call from the device and forgets them; an open window is continued."""
        steps, self._steps = self._steps, _Steps()
        count = len(steps.sizes)
        losses = self._losses[:count].tolist()
        weights = self._weights[:count].tolist() if self._is_weighted else steps.sizes
        weightless = int((self._totals[:count] == 0).sum()) if self._is_weighted else 0
        self._losses[:count] = 0
        if self._is_weighted:
            self._weights[:count] = 0
        closed, first_bad = self._assign(losses, weights, steps.ends)
        closed, self._closed = [*self._closed, *closed], []
        return FlushedLosses(closed, None if first_bad is None else completed_steps - count + 1 + first_bad, weightless)

    def state_dict(self) -> dict[str, Any]:
        """The window that is still open: Σ loss·weight and Σ weight on this rank up to the last `flush`, and counts."""
        window = self._open
        counts = (window.num_steps, window.num_samples, window.seconds, window.data_seconds)
        return {"sums": list(self._carried), "counts": list(counts)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues the window that `state_dict` returned."""
        loss_sum, weight_sum = state["sums"]
        num_steps, num_samples, seconds, data_seconds = state["counts"]
        self._carried = (loss_sum, weight_sum)
        self._open = LogWindow(num_steps=num_steps, num_samples=num_samples, seconds=seconds, data_seconds=data_seconds)

    def merge_ranks(self, states: list[dict[str, Any]], rank: int, world_size: int) -> dict[str, Any]:
        """All sums on rank 0, since only their total over the ranks counts."""
        sums = [0.0, 0.0]
        if rank == 0:
            sums = [sum(values) for values in zip(*(state["sums"] for state in states), strict=True)]
        return {"sums": sums, "counts": states[0]["counts"]}

    def _assign(
        self, losses: list[float], weights: list[float], ends: list[LogWindow | None]
    ) -> tuple[list[LogWindow], int | None]:
        """Adds each step to its window; returns the closed windows and the first row that is not finite."""
        closed: list[LogWindow] = []
        loss_sum, weight_sum = self._carried
        first_bad = None
        for row, (loss, weight, end) in enumerate(zip(losses, weights, ends, strict=True)):
            if first_bad is None and not math.isfinite(loss):
                first_bad = row
            loss_sum, weight_sum = loss_sum + loss, weight_sum + weight
            if end is not None:
                end.loss_sum, end.weight_sum = loss_sum, weight_sum
                closed.append(end)
                loss_sum = weight_sum = 0.0
        self._carried = (loss_sum, weight_sum)
        return closed, first_bad
