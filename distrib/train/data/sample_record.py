"""The record of which samples each step used, kept with --record-samples."""

from __future__ import annotations

import json
from pathlib import Path

from distrib.runs.line_file import LineFile
from distrib.train.data.loader import StepBatch


class SampleRecord:
    """One JSON line a step and rank, handed to the operating system before the optimizer steps."""

    def __init__(self, path: Path, attempt: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._attempt = attempt
        self._lines = LineFile(path)

    def write(self, batch: StepBatch, step: int) -> None:
        """Records the samples that count in `batch`, which makes up the global step `step` (from 1)."""
        ids = [index for part in batch.micro_batches if part.num_samples for index in part.indices]
        self._lines.append(json.dumps({"attempt": self._attempt, "epoch": batch.epoch, "step": step, "ids": ids}))

    def flush(self) -> None:
        """Writes what a full disk has not taken before; OSError where it still does not."""
        self._lines.flush()
