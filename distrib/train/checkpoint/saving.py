"""When checkpoints and best weights are saved, and how saves end."""

from __future__ import annotations

import functools
import math
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from distrib.job.plan import StepPlan
from distrib.job.spec import Best
from distrib.runs.storage.errors import NotKeptError, storage_problem
from distrib.runs.storage.protocols import RankStorage
from distrib.train.checkpoint.checkpointer import Checkpointer
from distrib.train.checkpoint.weights import copy_weights, write_weights
from distrib.train.control import SaveStatus


class _Writing(threading.Thread):
    """Some of the best weights on their way to their file.

    Attributes:
        weights: What is written; kept, so that it can be written anew, until it is.
    """

    def __init__(self, weights: dict[str, torch.Tensor], path: Path, steps: Sequence[Callable[[], None]]) -> None:
        super().__init__(name="best", daemon=True)
        self.weights = weights
        self._path = path
        self._steps = steps
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            for step in self._steps:
                step()
        except BaseException as error:
            self._error = error
        else:
            self.weights, self._steps = {}, ()

    @property
    def status(self) -> SaveStatus:
        """How far it is.

        Raises:
            Exception: What went wrong, other than that the file could not be kept.
        """
        if self.is_alive():
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


class BestWeights:
    """The weights of the best evaluation so far, written beside training by rank 0.

    Args:
        spec: Which value decides.
        storage: Where the run is kept.
        is_writer: Whether this rank writes the weights.

    Attributes:
        value: The best value so far.
        writing: The newest of the weights, on their way to the file or there.
    """

    def __init__(
        self,
        spec: Best,
        storage: RankStorage,
        *,
        is_writer: bool,
    ) -> None:
        self._spec = spec
        self._storage = storage
        self._path = storage.layout.best_file if is_writer else None
        self.value: float | None = None
        self.writing: _Writing | None = None

    def consider(self, results: dict[str, Any], model: nn.Module) -> None:
        """Keeps the weights if the evaluation's value is better than all before; the first of equals stays."""
        value = results[self._spec.metric]
        if value is None or math.isnan(value):
            return
        if self.value is not None and not (value > self.value if self._spec.mode == "max" else value < self.value):
            return
        self.value = value
        if self._path is not None:
            if self.writing is not None:
                self.writing.join()
                assert self.writing.status != SaveStatus.PENDING  # raises what went wrong
            self._write(copy_weights(model), self._path)

    def try_again(self) -> None:
        """Writes anew what could not be kept."""
        if self.writing is not None and self._path is not None and self.writing.status == SaveStatus.FAILED:
            self._write(self.writing.weights, self._path)

    def _write(self, weights: dict[str, torch.Tensor], path: Path) -> None:
        write, publish = functools.partial(write_weights, weights, path), functools.partial(self._storage.publish, path)
        self.writing = _Writing(weights, path, [self._storage.check_held, write, publish])


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
        schedule: StepPlan,
        take_notices: Callable[[], list[str]] = list,
    ) -> None:
        self._checkpointer = checkpointer
        self.best = best
        self._schedule = schedule
        self.take_notices = take_notices
        self._last_save = time.monotonic()
        self._awaited: _Writing | None = None

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
        statuses = [self._checkpointer.status, *([] if self._awaited is None else [self._awaited.status])]
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
            self._awaited = self.best.writing
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
        return step, problem or (None if self._awaited is None else self._awaited.problem)

    def wait(self) -> None:
        """Waits until this rank is done with the save in flight, and with the best weights that it speaks of."""
        if self._awaited is not None:
            self._awaited.join()
        if self._checkpointer is not None:
            self._checkpointer.wait()

    def finish(self) -> None:
        """Sees to it that the best weights are written, at the end of training.

        Raises:
            NotKeptError: They cannot be.
        """
        if self.best is None or self.best.writing is None:
            return
        self.best.writing.join()
        self.best.try_again()
        self.best.writing.join()
        if self.best.writing.status == SaveStatus.FAILED:
            raise NotKeptError(f"the best weights were not kept: {self.best.writing.problem}")

    def prepare(self) -> None:
        """Gets ready for the first save, beside training."""
        if self._checkpointer is not None:
            self._checkpointer.prepare()
