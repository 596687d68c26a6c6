"""Ray jobs: a job sent to a cluster, followed there, and stopped."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from distrib.compat.messages import is_unknown_ray_job
from distrib.errors import JobError, LaunchError
from distrib.job.reader import Job
from distrib.launch.network import answers
from distrib.launch.ray.job_environment import submitted_variables
from distrib.launch.ray.packing import EXCLUDED, check_size, path_in

if TYPE_CHECKING:
    from ray.job_submission import JobDetails

RUN_KEY = "distrib.run"
"""Under this name a Ray job's metadata hold the id of its run."""

_CONNECT_SECONDS = 5.0
_PATIENCE_SECONDS = 60.0
_POLL_SECONDS = 0.5
_TALKATIVE = ("ray", "ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk")
"""Loggers that tell of every upload and of each file that is left out of it."""
_TERMINAL = ("SUCCEEDED", "FAILED", "STOPPED")
_STOPPED_EXIT_CODE = 130


@dataclass(frozen=True)
class RayJob:
    """What Ray says of a job.

    Attributes:
        id: The id under which it was submitted.
        run_id: The id of its run; None for a job that `distrib submit` has not sent.
        status: PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED.
        message: What Ray has to say of that.
        exit_code: What its command exited with, where it did.
        started: Unix seconds, where it has started.
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
        return self.status in _TERMINAL

    @property
    def result(self) -> int:
        """The exit code of the run: the command's own, which Ray's status hides; a stopped job is stopped."""
        if self.status == "STOPPED":
            return _STOPPED_EXIT_CODE
        if self.status == "SUCCEEDED":
            return 0
        return self.exit_code if self.exit_code is not None and self.exit_code > 0 else 1


class JobServer:
    """The job server of a Ray cluster.

    Args:
        address: Its URL, `http://HOST:8265`.

    Raises:
        JobError: That is no such address.
        LaunchError: Nothing answers there.
    """

    def __init__(self, address: str) -> None:
        from ray.job_submission import JobSubmissionClient

        for name in _TALKATIVE:
            logging.getLogger(name).setLevel(logging.ERROR)
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise JobError(
                f"{address} is not the address of a job server, which is http://HOST:8265; "
                "for HOST:PORT of a cluster's head, from inside the cluster, use distrib run --address",
                field="--address",
            )
        self.address = address
        port = parts.port or (443 if parts.scheme == "https" else 80)
        if not answers(parts.hostname, port, _CONNECT_SECONDS):
            raise LaunchError(f"no job server answers at {address}; is the cluster up, and its dashboard reachable?")
        try:
            self._client = JobSubmissionClient(address)
        except Exception as error:
            raise LaunchError(f"what answers at {address} is not the job server of a Ray cluster: {error}") from error

    def submit(
        self,
        job: Job,
        run_id: str,
        arguments: Sequence[str],
        *,
        variables: Mapping[str, str],
        packages: Sequence[str],
    ) -> str:
        """Sends a job, with the working directory, to run as `distrib run` on the cluster; returns the Ray job's id.

        Args:
            job: The job; its file must lie in the working directory.
            run_id: The id of its run.
            arguments: Further arguments of `distrib run`.
            variables: Environment variables for all its processes.
            packages: Requirements that pip installs for it on every host.

        Raises:
            JobError: The working directory does not hold the job, or is too big.
            LaunchError: The cluster refuses the job.
        """
        folder = os.getcwd()
        path = path_in(folder, job)
        check_size(folder)
        command = ["python", "-m", "distrib", "run", path, "--run-id", run_id, *arguments]
        environment: dict[str, Any] = {
            "working_dir": folder,
            "excludes": list(EXCLUDED),
            "env_vars": submitted_variables(job.spec.failures.grace, variables),
        }
        if packages:
            environment["pip"] = list(packages)
        try:
            return self._client.submit_job(
                entrypoint=shlex.join(command),
                submission_id=self._unused_id(run_id),
                runtime_env=environment,
                metadata={RUN_KEY: run_id},
            )
        except Exception as error:
            raise LaunchError(f"the cluster at {self.address} refuses the job: {error}") from error

    def _unused_id(self, run_id: str) -> str:
        """The run's id, or, where Ray has a job of that name already, the first of ID--2, ID--3, …"""
        taken = {job.id for job in self.list()}
        candidate, number = run_id, 2
        while candidate in taken:
            candidate, number = f"{run_id}--{number}", number + 1
        return candidate

    def list(self) -> list[RayJob]:
        """All jobs that were submitted to the cluster, newest first."""
        jobs = self._asking(self._client.list_jobs)
        found = [_describe(details) for details in jobs if details.submission_id]
        return sorted(found, key=lambda job: job.started or 0.0, reverse=True)

    def find(self, id_: str) -> RayJob:
        """The newest job of a run, by the run's id, or a job by its own.

        Raises:
            JobError: There is none.
        """
        jobs = self.list()
        for job in jobs:
            if id_ in (job.run_id, job.id):
                return job
        known = ", ".join(job.run_id or job.id for job in jobs[:5]) or "none"
        raise JobError(f"the cluster at {self.address} has no job of run {id_}; the newest ones: {known}")

    def status(self, job_id: str) -> RayJob:
        """What Ray says of a job now; asks again for a minute where the server does not answer."""
        return _describe(self._asking(lambda: self._client.get_job_info(job_id)))

    def _asking(self, ask: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                return ask()
            except Exception as error:
                if time.monotonic() > deadline or is_unknown_ray_job(str(error)):
                    raise LaunchError(
                        f"lost contact with the job server at {self.address}: {error}; what it runs may still run: "
                        "ask again with distrib status"
                    ) from error
                time.sleep(_POLL_SECONDS)

    def follow(self, job_id: str, write: Callable[[str], None]) -> RayJob:
        """Passes on what a job's command prints, each line once, until it has ended.

        A connection that drops is made again; that a job has ended is believed only when Ray says so itself.

        Raises:
            LaunchError: The server has not answered for a minute.
        """
        printed = 0
        while True:
            with contextlib.suppress(Exception):
                printed = asyncio.run(self._tail(job_id, printed, write))
            job = self.status(job_id)
            if job.is_over:
                self._write_rest(job_id, printed, write)
                return job
            time.sleep(_POLL_SECONDS)

    async def _tail(self, job_id: str, skipped: int, write: Callable[[str], None]) -> int:
        """Follows the log, which the server tells from its beginning, past the characters that are known."""
        seen = 0
        try:
            async for text in self._client.tail_job_logs(job_id):
                new = text[max(0, skipped - seen) :]
                seen += len(text)
                if new:
                    write(new)
        except Exception:
            pass
        return max(seen, skipped)

    def _write_rest(self, job_id: str, printed: int, write: Callable[[str], None]) -> None:
        """What the last connection has not brought."""
        with contextlib.suppress(Exception):
            rest = self._client.get_job_logs(job_id)[printed:]
            if rest:
                write(rest)

    def logs(self, job_id: str) -> str:
        """What a job's command has printed so far."""
        return str(self._asking(lambda: self._client.get_job_logs(job_id)))

    def stop(self, job_id: str) -> None:
        """Asks a job to stop; its run takes a checkpoint first, for which Ray waits."""
        self._asking(lambda: self._client.stop_job(job_id))

    def wait(self, job_id: str, patience_seconds: float) -> RayJob:
        """Waits until a job has ended, or for so long."""
        deadline = time.monotonic() + patience_seconds
        while not (job := self.status(job_id)).is_over and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        return job


def _describe(details: JobDetails) -> RayJob:
    metadata = details.metadata or {}
    return RayJob(
        id=str(details.submission_id),
        run_id=metadata.get(RUN_KEY),
        status=str(details.status.value if hasattr(details.status, "value") else details.status),
        message=details.message or "",
        exit_code=details.driver_exit_code,
        started=None if details.start_time is None else details.start_time / 1000,
    )
