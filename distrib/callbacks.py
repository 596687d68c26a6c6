"""Callbacks to name under `callbacks` in a job spec."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn

from distrib.errors import DistribError

if TYPE_CHECKING:
    from torch import nn

    from distrib.train.session.session import Session


class EarlyStopping:
    """Ends the training when a metric has not improved for several evaluations.

    Args:
        metric: The name of a metric, or `loss`.
        patience: How many evaluations in a row may pass without an improvement.
        mode: Whether lower or higher values are better.
        min_delta: The smallest change that counts as an improvement.
    """

    def __init__(
        self, metric: str = "loss", patience: int = 3, mode: Literal["min", "max"] = "min", min_delta: float = 0.0
    ) -> None:
        if patience < 1 or mode not in ("min", "max") or min_delta < 0:
            raise ValueError("patience must be at least 1, mode min or max, and min_delta not negative")
        self._metric = metric
        self._patience = patience
        self._sign = 1.0 if mode == "max" else -1.0
        self._min_delta = min_delta
        self._best: float | None = None
        self._num_without = 0

    def on_evaluation(self, session: Session, results: dict[str, Any]) -> None:
        """Compares an evaluation with the best one so far."""
        if self._metric not in results:
            raise DistribError(f"EarlyStopping: evaluations have no '{self._metric}'; they have {', '.join(results)}")
        value = results[self._metric]
        score = None if value is None or math.isnan(value) else self._sign * value
        if score is not None and (self._best is None or score > self._best + self._min_delta):
            self._best, self._num_without = score, 0
            return
        self._num_without += 1
        if self._num_without >= self._patience:
            session.stop(f"{self._metric} has not improved for {self._num_without} evaluations")

    def state_dict(self) -> dict[str, Any]:
        """The best value, and how many evaluations have passed since."""
        return {"best": self._best, "num_without": self._num_without}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        self._best, self._num_without = state["best"], state["num_without"]


class Ema:
    """Keeps an exponential moving average of the parameters, with which the model is evaluated.

    After each step, average ← decay · average + (1 - decay) · parameter. Evaluations, and so the best weights, use the
    averages in place of the parameters, and the last averages are written to ema.safetensors. Buffers are not averaged.

    Args:
        decay: How much of the average remains after a step: at least 0, less than 1.
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise ValueError("decay must be at least 0 and less than 1")
        self._update = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        self._parameters: dict[str, nn.Parameter] = {}
        self._averages: dict[str, torch.Tensor] = {}

    def attach(self, model: nn.Module) -> None:
        """Begins with the parameters that `model` has; those of half precision are averaged in single precision.

        Integers, as of quantized layers, are not averaged.
        """
        named = model.named_parameters()
        self._parameters = {name: each for name, each in named if each.is_floating_point() or each.is_complex()}
        for name, parameter in self._parameters.items():
            is_half = parameter.dtype in (torch.float16, torch.bfloat16)
            self._averages[name] = parameter.detach().to(torch.float32 if is_half else parameter.dtype, copy=True)

    def on_step(self, session: Session, output: Any) -> None:
        """Moves the averages towards the parameters."""
        averages = list(self._averages.values())
        values = [parameter.detach() for parameter in self._parameters.values()]
        values = [value.to(average.dtype) for value, average in zip(values, averages, strict=True)]
        self._update(averages, values, 1)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model has the averages as its parameters for a while."""
        kept = {name: parameter.detach().clone() for name, parameter in self._parameters.items()}
        self._set(self._averages)
        try:
            yield
        finally:
            self._set(kept)

    def _set(self, values: dict[str, torch.Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                parameter.copy_(values[name])

    def state_dict(self) -> dict[str, Any]:
        """The averages by the names of their parameters."""
        return {"averages": self._averages}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        for name, average in self._averages.items():
            average.copy_(state["averages"][name])
