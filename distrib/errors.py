"""The errors that a user can cause; each message says what is wrong and how to fix it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


class DistribError(Exception):
    """Base of every error that is reported as a message without a traceback.

    Attributes:
        exit_code: The exit code of the `distrib` command for this error.
    """

    exit_code = 1


class JobError(DistribError):
    """The job spec or the command line is wrong (exit code 2).

    Args:
        message: What is wrong and how to fix it.
        file: The path of the spec, if the error is in a file.
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
        location = self.file or ""
        if location and self.line is not None:
            location += f":{self.line}"
        return ": ".join(part for part in (location, self.field, self.message) if part)


class TrainingFailedError(DistribError):
    """The training failed (exit code 1); the message names the rank, its host, its error and its log."""

    exit_code = 1


class InferenceError(DistribError):
    """A trained model cannot be used: its weights, the data or the outputs do not fit (exit code 1)."""

    exit_code = 1


class LaunchError(DistribError):
    """Ranks cannot be started: missing resources, no cluster, or a run held by another process (exit code 3)."""

    exit_code = 3


class ClusterLostError(LaunchError):
    """The head of the cluster was lost; the run can be resumed once it is back (exit code 3)."""


class StoppedError(DistribError):
    """The run was stopped by a signal or a command (exit code 130)."""

    exit_code = 130


class Stopped(BaseException):
    """A script's run was requested to stop, and its checkpoint is committed; raised by the script's session.

    Not an Exception, so that a script's `except Exception` does not continue as if the training were finished.
    """


def listed(names: Sequence[str], most: int = 3) -> str:
    """The first names for a message, and how many more there are."""
    more = [f"{len(names) - most} more"] if len(names) > most else []
    return ", ".join([*names[:most], *more])
