"""What is due after which step of a run: what a job's plan says, or the loops of a script."""

from __future__ import annotations

from typing import Protocol


class Steps(Protocol):
    """The steps of a run, counted over its whole life; see `StepPlan`, which is one."""

    @property
    def total_steps(self) -> int:
        """Completed steps at the end of the run, or of the present loop of a script."""

    @property
    def global_batch_size(self) -> int:
        """Samples of a step over all ranks, those of the last step of an epoch apart."""

    @property
    def is_ever_evaluated(self) -> bool:
        """Whether there are evaluations."""

    @property
    def save_interval_seconds(self) -> int:
        """Seconds between checkpoints; 0 if they are not saved by time."""

    def position(self, completed_steps: int) -> tuple[int, int]:
        """The next (epoch, step in the epoch) after `completed_steps` steps."""

    def samples_after(self, completed_steps: int) -> int:
        """Samples processed in the first `completed_steps` optimizer steps of the run."""

    def is_logged(self, completed_steps: int) -> bool:
        """Whether a train event is due."""

    def is_evaluated(self, completed_steps: int) -> bool:
        """Whether an evaluation is due."""

    def is_saved(self, completed_steps: int) -> bool:
        """Whether a checkpoint is due by steps."""
