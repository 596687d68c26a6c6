"""The record of which samples each step used, kept with --record-samples."""

from __future__ import annotations

import json
import os
from pathlib import Path

from distrib.runs.events import ends_inside_a_line
from distrib.train.data import StepBatch


class SampleRecord:
    """One JSON line a step and rank, handed to the operating system before the optimizer steps."""

    def __init__(self, path: Path, attempt: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._attempt = attempt
        self._starts_inside_a_line = ends_inside_a_line(path)
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)

    def write(self, batch: StepBatch, step: int) -> None:
        """Records the samples that count in `batch`, which makes up the global step `step` (from 1)."""
        ids = [index for part in batch.micro_batches if part.num_samples for index in part.indices]
        line = json.dumps({"attempt": self._attempt, "epoch": batch.epoch, "step": step, "ids": ids})
        start = b"\n" if self._starts_inside_a_line else b""  # after what was cut off with the rank that wrote it
        self._starts_inside_a_line = False
        os.write(self._file, start + line.encode() + b"\n")
