"""When checkpoints and best weights are saved, and how each save is completed; the same on every rank."""

from __future__ import annotations

import time
from typing import Any

import torch
import torch.distributed as dist

from distrib.runs.storage.errors import storage_problem
from distrib.train.checkpoint.best import BestWeights
from distrib.train.checkpoint.checkpointer import Checkpointer
from distrib.train.control import Agreement, SaveStatus, is_failed
from distrib.train.phases import Phase, RankProgress
from distrib.train.process.rank_tree import RankTree
from distrib.train.records import Records
from distrib.train.state import TrainingState
from distrib.train.steps import Steps


class Saving:
    """Begins saves and completes them once every rank's part is on disk; every rank calls it alike.

    Args:
        checkpointer: Saves checkpoints; None if the job saves none.
        best: Keeps the best weights, if the job asks for it.
        steps: What is due when.
        records: Writes events.
        control_group: A gloo group of all ranks.
        progress: Where this rank publishes that it waits for the others.
    """

    def __init__(
        self,
        checkpointer: Checkpointer | None,
        best: BestWeights | None,
        steps: Steps,
        records: Records,
        control_group: dist.ProcessGroup,
        progress: RankProgress,
    ) -> None:
        self._progress = progress
        self._checkpointer = checkpointer
        self._best = best
        self._steps = steps
        self._records = records
        self._tree = RankTree(control_group)
        self._last_save = time.monotonic()
        self._stall: dict[str, float] = {}

    @property
    def is_enabled(self) -> bool:
        """Whether there are checkpoints at all."""
        return self._checkpointer is not None

    @property
    def status(self) -> SaveStatus:
        """The progress of this rank's part of the save in flight, including the best weights that belong to it.

        Raises:
            Exception: What went wrong, other than that something could not be written.
        """
        if self._checkpointer is None:
            return SaveStatus.PENDING
        statuses = [self._checkpointer.status, *([] if self._best is None else self._best.awaited_statuses)]
        return SaveStatus.PENDING if SaveStatus.PENDING in statuses else max(statuses)

    @property
    def is_due(self) -> bool:
        """Whether a checkpoint by seconds is due by this rank's clock."""
        seconds = self._steps.save_interval_seconds
        return seconds > 0 and time.monotonic() - self._last_save >= seconds

    def prepare(self) -> None:
        """Gets ready for the first save in the background."""
        if self._checkpointer is not None:
            self._checkpointer.prepare()

    def save(self, state: TrainingState) -> None:
        """Begins a checkpoint of the step that has just ended; waits for one that is still in flight."""
        assert self._checkpointer is not None
        started = time.perf_counter()
        self.finish_saving(state.completed_steps)
        waited = time.perf_counter() - started
        state.sync_buffers()
        self._last_save = time.monotonic()
        if self._best is not None:
            self._best.await_newest()
        self._checkpointer.save()
        self._stall = {"wait_seconds": waited, "stall_seconds": time.perf_counter() - started - waited}

    def advance(self, agreement: Agreement, completed_steps: int) -> None:
        """Commits or drops the save in flight if all ranks have finished with it."""
        if agreement.is_save_failed:
            self._drop(completed_steps)
        elif agreement.is_saved:
            self._commit(completed_steps)

    def finish_saving(self, completed_steps: int) -> None:
        """Waits until the save in flight, if there is one, is committed or dropped."""
        while self._checkpointer is not None and self._checkpointer.is_saving:
            if self._best is not None:
                self._best.wait()
            self._checkpointer.wait()
            with self._progress.during(Phase.REDUCE):
                has_failed = self._tree.combine([self.status], 1, _any_failed)[0]
            if has_failed:
                self._drop(completed_steps)
            else:
                self._commit(completed_steps)

    def consider_best(self, results: dict[str, Any], state: TrainingState) -> None:
        """Keeps the weights if the evaluation is the best so far."""
        if self._best is not None:
            self._best.consider(results, state)

    def finish_best(self) -> None:
        """Waits until the best weights are written.

        Raises:
            NotKeptError: They cannot be written.
        """
        if self._best is not None:
            self._best.finish()

    def _commit(self, completed_steps: int) -> None:
        assert self._checkpointer is not None
        try:
            committed = self._checkpointer.commit()
        except OSError as error:
            self._warn(completed_steps, completed_steps, storage_problem(error, "the checkpoint") or str(error))
            return
        for message in self._checkpointer.take_warnings():
            self._records.warn(completed_steps, message)
        if committed is not None:
            self._records.event("checkpoint", committed[0], save_seconds=committed[1], **self._stall)

    def _drop(self, completed_steps: int) -> None:
        """Continues without a checkpoint that could not be written; rank 0 reports the reason."""
        assert self._checkpointer is not None
        step, problem = self._checkpointer.drop()
        if problem is None and self._best is not None:
            problem = self._best.awaited_problem
        reasons = [text for text in self._tree.gather_objects(problem) or [] if text is not None]
        if reasons:
            others = f" (the same on {len(reasons)} ranks)" if len(reasons) > 1 else ""
            self._warn(completed_steps, step, reasons[0] + others)

    def _warn(self, completed_steps: int, step: int, problem: str) -> None:
        self._records.warn(
            completed_steps, f"the checkpoint of step {step} was not kept, the ones before it stand: {problem}"
        )


def _any_failed(rows: torch.Tensor) -> list[float]:
    return [float(is_failed(rows[:, 0].tolist()))]
