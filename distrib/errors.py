"""The one tree of errors that a user can cause or meet; each says what is wrong and the way out."""

from __future__ import annotations

from pathlib import Path


class DistribError(Exception):
    """Base of every error that is reported to the user as a message, never as a traceback.

    Attributes:
        exit_code: What the `distrib` command exits with when it meets this error.
    """

    exit_code = 1


class JobError(DistribError):
    """The job spec or the command line is wrong (exit code 2).

    Args:
        message: What is wrong, and the way out.
        file: The spec's path, where the error can be placed in one.
        line: The line in `file`, counted from 1.
        field: The dotted path of the field, such as `data.batch_size`.
    """

    exit_code = 2

    def __init__(
        self, message: str, *, file: Path | str | None = None, line: int | None = None, field: str | None = None
    ) -> None:
        self.message = message
        self.file = None if file is None else str(file)
        self.line = line
        self.field = field
        super().__init__(str(self))

    def __str__(self) -> str:
        place = self.file or ""
        if place and self.line is not None:
            place += f":{self.line}"
        return ": ".join(part for part in (place, self.field, self.message) if part)


class TrainingFailedError(DistribError):
    """The training itself failed (exit code 1); the message names the rank, its host, its error and its log."""

    exit_code = 1


class InferenceError(DistribError):
    """A trained model cannot be used as asked: its weights, the data or the outputs do not fit (exit code 1)."""

    exit_code = 1


class LaunchError(DistribError):
    """Ranks cannot be brought to life: no such resources, a refusing cluster, a run held elsewhere (exit code 3)."""

    exit_code = 3


class StoppedError(DistribError):
    """The run was asked to stop and did (exit code 130)."""

    exit_code = 130
