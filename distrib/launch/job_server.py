"""The job server protocol: a service that runs `distrib run` on a cluster for whoever submits a job."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from distrib.job.script import AnyJob

STOPPED_EXIT_CODE = 130


@dataclass(frozen=True)
class Submission:
    """A job to be run elsewhere.

    Attributes:
        job: The job; its file must be in the working directory, which is sent along.
        run_id: The id of its run.
        command: The command that runs it, in a copy of the working directory.
        variables: Environment variables for all its processes.
        packages: Requirements that pip installs for it on every host.
    """

    job: AnyJob
    run_id: str
    command: Sequence[str]
    variables: Mapping[str, str] = field(default_factory=dict)
    packages: Sequence[str] = ()


@dataclass(frozen=True)
class SubmittedJob:
    """What a job server reports about a job.

    Attributes:
        id: The id under which it was submitted.
        run_id: The id of its run; None for a job that was not submitted by this package.
        status: PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED.
        message: The server's explanation of the status.
        exit_code: The exit code of its command, if it has exited.
        started: Unix seconds, if it has started.
    """

    id: str
    run_id: str | None
    status: str
    message: str
    exit_code: int | None
    started: float | None

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self.status in ("SUCCEEDED", "FAILED", "STOPPED")

    @property
    def result(self) -> int:
        """The exit code of the run: the command's own, which the status hides; 130 for a stopped job."""
        if self.status == "STOPPED":
            return STOPPED_EXIT_CODE
        if self.status == "SUCCEEDED":
            return 0
        return self.exit_code if self.exit_code is not None and self.exit_code > 0 else 1


class JobServer(Protocol):
    """Runs submitted jobs. Methods that query it raise LaunchError if it has not answered for a minute."""

    @property
    def address(self) -> str:
        """Where the server is."""

    def describe(self, submission: Submission) -> Mapping[str, Any]:
        """What `submit` sends, as plain data.

        Raises:
            JobError: The job cannot be sent.
        """

    def submit(self, submission: Submission) -> str:
        """Sends a job; returns the server's id for it.

        Raises:
            JobError: The job cannot be sent.
            LaunchError: The server refuses the job.
        """

    def list(self) -> list[SubmittedJob]:
        """All jobs that were submitted, newest first."""

    def find(self, id_: str) -> SubmittedJob:
        """The newest job of a run, by the run's id, or a job by its own id; JobError if there is none."""

    def status(self, job_id: str) -> SubmittedJob:
        """The job's present status."""

    def logs(self, job_id: str) -> str:
        """What the job's command has printed so far."""

    def follow(self, job_id: str, write: Callable[[str], None]) -> SubmittedJob:
        """Passes what the job's command prints to `write`, each line once, until the job has ended."""

    def stop(self, job_id: str) -> None:
        """Requests the job to stop, which takes a checkpoint first; returns at once."""

    def wait(self, job_id: str, timeout_seconds: float) -> SubmittedJob:
        """Waits until the job has ended, at most until the timeout."""


def check_shared_storage(job: AnyJob) -> None:
    """Refuses a job whose runs would be in a different folder on each host.

    Raises:
        JobError: Its storage is a relative path.
    """
    storage = job.spec.storage
    if "://" not in storage and not os.path.isabs(os.path.expanduser(storage)):
        raise job.error(
            "storage",
            f"{storage!r} is relative, so it is a different folder on each host of a cluster; name a shared folder by "
            "its full path, or an object store: `runs_dir` or DISTRIB_RUNS_DIR",
        )
