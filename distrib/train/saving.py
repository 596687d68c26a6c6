"""When checkpoints and best weights are saved, and how saves end."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from distrib.job.plan import Schedule
from distrib.job.spec import Best
from distrib.train.checkpoint import Checkpointer
from distrib.train.weights import copy_weights, write_weights


class BestWeights:
    """The weights of the best evaluation so far, written beside training by rank 0.

    Args:
        spec: Which value decides.
        path: Where they go; None on other ranks.
        check_held: Called before the file is written; raises where this attempt does not hold the run any more.
    """

    def __init__(self, spec: Best, path: Path | None, check_held: Callable[[], None]) -> None:
        self._spec = spec
        self._path = path
        self._check_held = check_held
        self._writer: threading.Thread | None = None
        self._error: BaseException | None = None
        self.value: float | None = None

    def consider(self, results: dict[str, Any], model: nn.Module) -> None:
        """Keeps the weights if the evaluation's value is better than all before; the first of equals stays."""
        value = results[self._spec.metric]
        if value is None or math.isnan(value):
            return
        if self.value is not None and not (value > self.value if self._spec.mode == "max" else value < self.value):
            return
        self.value = value
        if self._path is not None:
            self.wait()
            weights, path = copy_weights(model), self._path
            self._writer = threading.Thread(target=self._write, args=(weights, path), name="best", daemon=True)
            self._writer.start()

    def _write(self, weights: dict[str, torch.Tensor], path: Path) -> None:
        try:
            self._check_held()
            write_weights(weights, path)
        except BaseException as error:
            self._error = error

    @property
    def is_written(self) -> bool:
        """Whether the file holds the best weights.

        Raises:
            Exception: It could not be written.
        """
        if self._error is not None:
            raise self._error
        return self._writer is None or not self._writer.is_alive()

    def wait(self) -> None:
        """Waits for the file.

        Raises:
            Exception: It could not be written.
        """
        if self._writer is not None:
            self._writer.join()
        if self._error is not None:
            raise self._error


class Saving:
    """Decides when to save and sees each save through to its commit; every rank takes the same decisions.

    Args:
        checkpointer: Does the work; None where nothing is ever saved.
        best: Keeps the best weights, where asked for.
        schedule: What is due when.
    """

    def __init__(
        self,
        checkpointer: Checkpointer | None,
        best: BestWeights | None,
        schedule: Schedule,
    ) -> None:
        self._checkpointer = checkpointer
        self.best = best
        self._schedule = schedule
        self._last_save = time.monotonic()

    @property
    def is_enabled(self) -> bool:
        """Whether there are checkpoints at all."""
        return self._checkpointer is not None

    @property
    def is_ready(self) -> bool:
        """Whether this rank's part of the save in flight is on disk, the best weights that it speaks of included."""
        if self._checkpointer is None or not self._checkpointer.is_ready:
            return False
        return self.best is None or self.best.is_written

    @property
    def wants_save(self) -> bool:
        """Whether a checkpoint by seconds is due by this rank's clock."""
        seconds = self._schedule.save_interval_seconds
        return seconds > 0 and time.monotonic() - self._last_save >= seconds

    def begin(self, step: int, plain: dict[str, Any]) -> None:
        """Begins to save; the save before must be committed."""
        assert self._checkpointer is not None
        self._last_save = time.monotonic()
        self._checkpointer.save(step, plain)

    @property
    def is_saving(self) -> bool:
        """Whether a save is in flight."""
        return self._checkpointer is not None and self._checkpointer.is_saving

    def commit(self) -> tuple[int, float]:
        """Commits the save in flight, whose parts are all on disk; returns its step and how long it took."""
        assert self._checkpointer is not None
        return self._checkpointer.commit()

    def wait(self) -> None:
        """Waits until this rank's part of the save in flight is on disk.

        Raises:
            Exception: It could not be written.
        """
        if self.best is not None:
            self.best.wait()
        if self._checkpointer is not None and self._checkpointer.is_saving:
            self._checkpointer.wait()
            assert self._checkpointer.is_ready

    def prepare(self) -> None:
        """Gets ready for the first save, beside training."""
        if self._checkpointer is not None:
            self._checkpointer.prepare()
