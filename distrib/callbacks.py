"""Callbacks to name under `callbacks` in a job spec."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

from distrib.errors import DistribError

if TYPE_CHECKING:
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
