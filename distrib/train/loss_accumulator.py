"""The losses of the steps since ranks last exchanged, kept on the device until then."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

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
    seconds: float = 0.0
    data_seconds: float = 0.0
    learning_rate: float = 0.0
    loss_sum: float = 0.0
    weight_sum: float = 0.0


@dataclass
class Settled:
    """What the ledger holds at an exchange: this rank's closed windows, and the first step that went wrong."""

    windows: list[LogWindow]
    non_finite_step: int | None
    weightless_steps: int


@dataclass
class _Steps:
    sizes: list[float] = field(default_factory=list)
    ends: list[LogWindow | None] = field(default_factory=list)


class LossAccumulator:
    """Adds up this rank's share of each step's loss, Σ loss·weight and Σ weight, without waiting for the device.

    Args:
        device: Where losses are computed.
        is_weighted: Whether the user's step gives weights; otherwise they are the numbers of samples.
    """

    def __init__(self, device: torch.device, is_weighted: bool) -> None:
        self._is_weighted = is_weighted
        self._losses = torch.zeros(CAPACITY, dtype=torch.float64, device=device)
        self._weights = torch.zeros(CAPACITY if is_weighted else 0, dtype=torch.float64, device=device)
        self._totals = torch.zeros(CAPACITY if is_weighted else 0, dtype=torch.float64, device=device)
        self._steps = _Steps()
        self._size = 0.0
        self._open = LogWindow()
        self._carried = (0.0, 0.0)

    def add(self, loss: torch.Tensor, weight: torch.Tensor | float) -> None:
        """Adds one micro-batch to the current step; a loss of weight 0 counts for nothing, whatever it is."""
        row = len(self._steps.sizes)
        if isinstance(weight, torch.Tensor):
            self._losses[row].add_(torch.where(weight > 0, loss * weight, 0.0))
            self._weights[row].add_(weight)
        elif weight > 0:
            self._losses[row].add_(loss, alpha=weight)
            self._size += weight

    def add_total(self, weight: torch.Tensor) -> None:
        """Notes the current step's weight over all ranks."""
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
        window.seconds += seconds
        window.data_seconds += data_seconds

    def end_window(self, step: int, time: float, learning_rate: float) -> None:
        """Closes the window of the next train event with the step that has just ended, global step `step`."""
        self._open.step, self._open.time, self._open.learning_rate = step, time, learning_rate
        self._steps.ends[-1] = self._open
        self._open = LogWindow()

    def settle(self, completed_steps: int) -> Settled:
        """Reads all steps since the last call from the device and forgets them; unfinished windows are carried on."""
        steps, self._steps = self._steps, _Steps()
        count = len(steps.sizes)
        losses = self._losses[:count].tolist()
        weights = self._weights[:count].tolist() if self._is_weighted else steps.sizes
        weightless = int((self._totals[:count] == 0).sum()) if self._is_weighted else 0
        self._losses[:count] = 0
        if self._is_weighted:
            self._weights[:count] = 0
        closed, first_bad = self._share_out(losses, weights, steps.ends)
        return Settled(closed, None if first_bad is None else completed_steps - count + 1 + first_bad, weightless)

    @property
    def carried(self) -> list[float]:
        """Of the window that has not closed: Σ loss·weight and Σ weight up to the last `settle`, then its numbers."""
        window = self._open
        numbers = (window.num_steps, window.num_samples, window.seconds, window.data_seconds)
        return [*self._carried, *map(float, numbers)]

    def carry(self, carried: list[float]) -> None:
        """Takes up a window that a checkpoint has carried over."""
        loss_sum, weight_sum, num_steps, num_samples, seconds, data_seconds = carried
        self._carried = (loss_sum, weight_sum)
        self._open = LogWindow(
            num_steps=int(num_steps), num_samples=int(num_samples), seconds=seconds, data_seconds=data_seconds
        )

    def _share_out(
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
