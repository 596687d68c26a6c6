"""The layout of a run's folder: every path inside it is defined here."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

MAX_ID_LENGTH = 100
"""The longest run id that the job spec's rule for names allows."""


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
    def launcher_file(self) -> Path:
        """The launcher that is about to continue the run, while it prepares to."""
        return self.folder / "launcher.json"

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
        """The weights of the best evaluation, if `checkpoint.best` is set."""
        return self.folder / "best.safetensors"

    @property
    def ema_file(self) -> Path:
        """The final averages of the weights, if a callback of the job keeps them."""
        return self.folder / "ema.safetensors"

    @property
    def measurement_file(self) -> Path:
        """The result of a run that measures instead of training."""
        return self.folder / "measurement.json"

    @property
    def positions_file(self) -> Path:
        """Where the ranks stand, while they run."""
        return self.folder / "positions.json"

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.folder / "checkpoints"

    def rank_log(self, rank: int) -> Path:
        """The output of rank `rank`."""
        return self.folder / "logs" / f"rank-{rank}.log"

    def rank_log_times(self, rank: int) -> Path:
        """When the lines of that output were written, and on which host."""
        return self.folder / "logs" / f"rank-{rank}.times"

    def native_stacks(self, rank: int) -> Path:
        """Where rank `rank` stood when the ranks hung, with native frames, if py-spy could look at it."""
        return self.folder / "logs" / f"rank-{rank}.native-stacks.txt"

    @property
    def nccl_trace_prefix(self) -> Path:
        """What the names of NCCL's traces begin with; the rank follows."""
        return self.folder / "logs" / "nccl-trace-rank-"

    def rank_error(self, rank: int) -> Path:
        """Why rank `rank` failed, if it did."""
        return self.folder / "logs" / f"rank-{rank}.error.json"

    def samples_file(self, rank: int) -> Path:
        """The ids of the samples that rank `rank` trained on, step by step."""
        return self.folder / "samples" / f"rank-{rank}.jsonl"


def new_run_id(name: str, now: datetime) -> str:
    """An id for a new run of the job `name`: NAME-YYYYMMDD-HHMMSS-xxxx, with the name shortened if needed.

    Args:
        name: The job's name.
        now: The local time.
    """
    suffix = f"-{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    return name[: MAX_ID_LENGTH - len(suffix)] + suffix
