"""The record of which samples each step used, kept with --record-samples."""

from __future__ import annotations

import json
from pathlib import Path

from distrib.runs.files.line_file import LineFile
from distrib.train.data.loader import StepBatch


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
