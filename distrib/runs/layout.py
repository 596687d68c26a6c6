"""Where everything of a run lies: each path inside a run's folder comes from here."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

MAX_ID_LENGTH = 100
"""Longest run id, as the job spec's rule for names has it."""


@dataclass(frozen=True)
class RunLayout:
    """The paths of one run.

    Attributes:
        folder: The run's own folder, RUNS_DIR/RUN_ID.
    """

    folder: Path

    @property
    def job_file(self) -> Path:
        """The job spec as used."""
        return self.folder / "job.yaml"

    @property
    def record_file(self) -> Path:
        """Status, request, schedule, provenance and result."""
        return self.folder / "run.json"

    @property
    def metrics_file(self) -> Path:
        """One JSON object per event."""
        return self.folder / "metrics.jsonl"

    @property
    def weights_file(self) -> Path:
        """The final weights."""
        return self.folder / "model.safetensors"

    @property
    def best_file(self) -> Path:
        """The weights of the best evaluation, where `checkpoint.best` asks for them."""
        return self.folder / "best.safetensors"

    @property
    def measurement_file(self) -> Path:
        """What a run has measured that was to measure, not to train."""
        return self.folder / "measurement.json"

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.folder / "checkpoints"

    def rank_log(self, rank: int) -> Path:
        """What rank `rank` printed."""
        return self.folder / "logs" / f"rank-{rank}.log"

    def rank_error(self, rank: int) -> Path:
        """Why rank `rank` failed, where it did."""
        return self.folder / "logs" / f"rank-{rank}.error.json"

    def samples_file(self, rank: int) -> Path:
        """The ids of the samples that rank `rank` trained on, step by step."""
        return self.folder / "samples" / f"rank-{rank}.jsonl"


def new_run_id(name: str, now: datetime) -> str:
    """An id for a new run of the job `name`: NAME-YYYYMMDD-HHMMSS-xxxx, the name shortened where needed.

    Args:
        name: The job's name.
        now: The local time.
    """
    suffix = f"-{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    return name[: MAX_ID_LENGTH - len(suffix)] + suffix
