"""The weights of the best evaluation so far."""

from __future__ import annotations

import copy
import functools
import math
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from distrib.job.spec.resources import Best
from distrib.runs.storage.errors import NotKeptError, storage_problem
from distrib.train.checkpoint.extra_state import extra_states
from distrib.train.checkpoint.weights import copy_weights, write_weights
from distrib.train.control import SaveStatus
from distrib.train.rank import Rank
from distrib.train.state import TrainingState


class _Writing(threading.Thread):
    """Weights that are being written to their file in the background.

    Attributes:
        weights: What is written; kept until it is, so that it can be written again.
    """

    def __init__(self, weights: dict[str, torch.Tensor], path: Path, actions: Sequence[Callable[[], None]]) -> None:
        super().__init__(name="best", daemon=True)
        self.weights = weights
        self._path = path
        self._actions = actions
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            for action in self._actions:
                action()
        except BaseException as error:
            self._error = error
        else:
            self.weights, self._actions = {}, ()

    @property
    def status(self) -> SaveStatus:
        """Its progress.

        Raises:
            Exception: What went wrong, other than that the file could not be written.
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
        """Why the file could not be written."""
        return None if self._error is None else storage_problem(self._error, str(self._path))


class BestWeights:
    """Keeps the weights of the best evaluation; rank 0 writes them in the background.

    Args:
        spec: Which value decides.
        rank: This rank.

    Attributes:
        value: The best value so far.
    """

    def __init__(self, spec: Best, rank: Rank) -> None:
        self._spec = spec
        self._rank = rank
        self._path = rank.layout.best_file
        self.value: float | None = None
        self._extra: dict[str, Any] = {}
        self._newest: _Writing | None = None
        self._awaited: _Writing | None = None

    def state_dict(self) -> dict[str, Any]:
        """The best value."""
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the best value; its weights are in the run's folder."""
        self.value = state["value"]

    def consider(self, results: dict[str, Any], state: TrainingState) -> None:
        """Keeps the weights if the evaluation's value is better than all before; of equal ones the first is kept."""
        value = results[self._spec.metric]
        if value is None or math.isnan(value):
            return
        if self.value is not None and not (value > self.value if self._spec.mode == "max" else value < self.value):
            return
        self.value = value
        weights = state.strategy.full_weights(state.model)
        if weights is None:
            return
        if self._newest is not None:
            self._newest.join()
            assert self._newest.status != SaveStatus.PENDING  # raises what went wrong
        self._extra = copy.deepcopy(extra_states(state.model))
        self._write(copy_weights(weights))

    def await_newest(self) -> None:
        """Makes the next checkpoint wait for the newest best weights, which are written again if that failed."""
        self._retry()
        self._awaited = self._newest

    @property
    def awaited_statuses(self) -> list[SaveStatus]:
        """The status of the weights that the checkpoint in flight waits for, if there are any."""
        return [] if self._awaited is None else [self._awaited.status]

    @property
    def awaited_problem(self) -> str | None:
        """Why the weights that the checkpoint in flight waits for could not be written."""
        return None if self._awaited is None else self._awaited.problem

    def wait(self) -> None:
        """Waits until the weights that the checkpoint in flight waits for are written or have failed."""
        if self._awaited is not None:
            self._awaited.join()

    def finish(self) -> None:
        """Waits until the weights are written, at the end of training.

        Raises:
            NotKeptError: They cannot be written.
        """
        if self._newest is None:
            return
        self._newest.join()
        self._retry()
        self._newest.join()
        if self._newest.status == SaveStatus.FAILED:
            raise NotKeptError(f"the best weights were not kept: {self._newest.problem}")

    def _retry(self) -> None:
        if self._newest is not None and self._newest.status == SaveStatus.FAILED:
            self._write(self._newest.weights)

    def _write(self, weights: dict[str, torch.Tensor]) -> None:
        write = functools.partial(write_weights, weights, self._path, self._extra)
        publish = functools.partial(self._rank.storage.publish, self._path)
        self._newest = _Writing(weights, self._path, [self._rank.storage.check_held, write, publish])
