"""Which samples each step used, kept with --record-samples, and how many."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from distrib.runs.files.line_file import LineFile
from distrib.train.data.loader import StepBatch

_NUM_RECENT = 1 << 14
"""Steps whose events can still be written: many more than lie between two exchanges of the ranks."""
_NUM_SAVED = 16


class SampleRecord:
    """One JSON line a step and rank, handed to the operating system before the optimizer steps."""

    def __init__(self, path: Path, attempt: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._attempt = attempt
        self._lines = LineFile(path)

    def write(self, batch: StepBatch) -> None:
        """Records the samples of `batch` that count; steps are counted from 1."""
        line = {"attempt": self._attempt, "epoch": batch.epoch, "step": batch.global_step + 1, "ids": batch.sample_ids}
        self._lines.append(json.dumps(line))

    def flush(self) -> None:
        """Writes the lines that a full disk refused before; OSError if it still refuses them."""
        self._lines.flush()


class SampleCounter:
    """The samples of all steps of the run; part of checkpoints, since steps may differ in theirs.

    Args:
        completed_steps: Steps of the run so far, whose samples are those of the checkpoint.
    """

    def __init__(self, completed_steps: int) -> None:
        self._last = completed_steps
        self._recent = {completed_steps: 0}
        self._saved: dict[int, int] = {}

    def add(self, batch: StepBatch) -> None:
        """Counts a step that is about to run."""
        total = self._recent[self._last] + batch.global_batch_size
        self._last = batch.global_step + 1
        self._recent[self._last] = total
        _forget_oldest(self._recent, _NUM_RECENT)

    def samples_after(self, completed_steps: int) -> int:
        """The samples of the first `completed_steps` steps: a recent number, or that of a checkpoint."""
        known = self._recent if completed_steps in self._recent else self._saved
        return known.get(completed_steps, self._recent[self._last])

    def state_dict(self) -> dict[str, Any]:
        """The samples of all completed steps."""
        self._saved[self._last] = self._recent[self._last]  # its event is written when the save is committed
        _forget_oldest(self._saved, _NUM_SAVED)
        return {"total": self._recent[self._last]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        self._recent[self._last] = state["total"]


def _forget_oldest(totals: dict[int, int], num_kept: int) -> None:
    if len(totals) > num_kept:
        del totals[next(iter(totals))]
