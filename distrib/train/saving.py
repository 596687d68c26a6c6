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
from distrib.runs.storage_error import NotKeptError, storage_problem
from distrib.train.checkpoint import Checkpointer
from distrib.train.control import SaveStatus
from distrib.train.weights import copy_weights, write_weights


class BestWeights:
    """The weights of the best evaluation so far, written beside training by rank 0.

    Args:
        spec: Which value decides.
        path: Where they go; None on other ranks.
        check_held: Called before the file is written; raises where this attempt does not hold the run any more.
        publish: Called with the path once the file is written.
    """

    def __init__(
        self,
        spec: Best,
        path: Path | None,
        check_held: Callable[[], None],
        publish: Callable[[Path], None] | None = None,
    ) -> None:
        self._spec = spec
        self._path = path
        self._check_held = check_held
        self._publish = publish
        self._weights: dict[str, torch.Tensor] | None = None
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
            self._weights = copy_weights(model)
            self._start(self._weights, self._path)

    def try_again(self) -> None:
        """Writes anew what could not be written."""
        if self._error is not None and self._weights is not None and self._path is not None:
            self._start(self._weights, self._path)

    def _start(self, weights: dict[str, torch.Tensor], path: Path) -> None:
        self._error = None
        self._writer = threading.Thread(target=self._write, args=(weights, path), name="best", daemon=True)
        self._writer.start()

    def _write(self, weights: dict[str, torch.Tensor], path: Path) -> None:
        try:
            self._check_held()
            write_weights(weights, path)
            if self._publish is not None:
                self._publish(path)
        except BaseException as error:
            self._error = error
        else:
            self._weights = None

    @property
    def status(self) -> SaveStatus:
        """Whether the file holds the best weights.

        Raises:
            Exception: What went wrong, other than that it could not be kept.
        """
        if self._writer is not None and self._writer.is_alive():
            return SaveStatus.PENDING
        if self._error is None:
            return SaveStatus.DONE
        if self.problem is None:
            raise self._error
        return SaveStatus.FAILED

    @property
    def problem(self) -> str | None:
        """Why the file could not be kept."""
        return None if self._error is None else storage_problem(self._error, str(self._path))

    def wait(self) -> None:
        """Waits until the file is written, or cannot be."""
        if self._writer is not None:
            self._writer.join()


class Saving:
    """Decides when to save and sees each save through to its commit; every rank takes the same decisions.

    Args:
        checkpointer: Does the work; None where nothing is ever saved.
        best: Keeps the best weights, where asked for.
        schedule: What is due when.
        take_notices: Gives what is to be said about keeping things, and forgets it.
    """

    def __init__(
        self,
        checkpointer: Checkpointer | None,
        best: BestWeights | None,
        schedule: Schedule,
        take_notices: Callable[[], list[str]] = list,
    ) -> None:
        self._checkpointer = checkpointer
        self.best = best
        self._schedule = schedule
        self.take_notices = take_notices
        self._last_save = time.monotonic()

    @property
    def is_enabled(self) -> bool:
        """Whether there are checkpoints at all."""
        return self._checkpointer is not None

    @property
    def status(self) -> SaveStatus:
        """How far this rank's part of the save in flight is, with the best weights that it speaks of.

        Raises:
            Exception: What went wrong, other than that something could not be kept.
        """
        if self._checkpointer is None:
            return SaveStatus.PENDING
        statuses = [self._checkpointer.status, *([] if self.best is None else [self.best.status])]
        return SaveStatus.PENDING if SaveStatus.PENDING in statuses else max(statuses)

    @property
    def wants_save(self) -> bool:
        """Whether a checkpoint by seconds is due by this rank's clock."""
        seconds = self._schedule.save_interval_seconds
        return seconds > 0 and time.monotonic() - self._last_save >= seconds

    def begin(self, step: int, plain: dict[str, Any]) -> None:
        """Begins to save; the save before must be committed."""
        assert self._checkpointer is not None
        self._last_save = time.monotonic()
        if self.best is not None:
            self.best.try_again()
        self._checkpointer.save(step, plain)

    @property
    def is_saving(self) -> bool:
        """Whether a save is in flight."""
        return self._checkpointer is not None and self._checkpointer.is_saving

    def commit(self) -> tuple[int, float] | None:
        """Takes the save in flight, with which all ranks are done, a step further; see `Checkpointer.commit`."""
        assert self._checkpointer is not None
        return self._checkpointer.commit()

    def give_up(self) -> tuple[int, str | None]:
        """Drops the save in flight, which has failed somewhere; returns its step and this rank's reason, if any."""
        assert self._checkpointer is not None
        step, problem = self._checkpointer.give_up()
        return step, problem or (None if self.best is None else self.best.problem)

    def wait(self) -> None:
        """Waits until this rank is done with the save in flight."""
        if self.best is not None:
            self.best.wait()
        if self._checkpointer is not None:
            self._checkpointer.wait()

    def finish(self) -> None:
        """Sees to it that the best weights are written, at the end of training.

        Raises:
            NotKeptError: They cannot be.
        """
        if self.best is None:
            return
        self.best.wait()
        if self.best.status == SaveStatus.FAILED:
            self.best.try_again()
            self.best.wait()
        if self.best.status == SaveStatus.FAILED:
            raise NotKeptError(f"the best weights were not kept: {self.best.problem}")

    def prepare(self) -> None:
        """Gets ready for the first save, beside training."""
        if self._checkpointer is not None:
            self._checkpointer.prepare()
