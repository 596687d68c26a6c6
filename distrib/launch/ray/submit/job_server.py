"""The job server of a Ray cluster: submits a job, follows it and stops it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shlex
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from distrib.compat.messages import is_unknown_ray_job
from distrib.errors import JobError, LaunchError
from distrib.job.secret_names import mask, secret_values
from distrib.launch.job_server import Submission, SubmittedJob
from distrib.launch.network import answers
from distrib.launch.ray.access.job_secrets import send_secrets, split_secrets
from distrib.launch.ray.access.token import find_token, refusal
from distrib.launch.ray.cluster.packing import EXCLUDED, check_size, path_in
from distrib.launch.ray.submit.job_environment import submitted_variables

if TYPE_CHECKING:
    from ray.job_submission import JobDetails

RUN_KEY = "distrib.run"
"""The key of the run's id in a Ray job's metadata."""

_CONNECT_SECONDS = 5.0
_RETRY_SECONDS = 60.0
_POLL_SECONDS = 0.5
_NOISY_LOGGERS = ("ray", "ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk")
"""Loggers that report every upload and each file that is left out of it."""


class RayJobServer:
    """The job server of a Ray cluster.

    Args:
        address: Its URL, `http://HOST:8265`.

    Raises:
        JobError: It is not such an address.
        LaunchError: Nothing answers there, or it does not accept this client's token.
    """

    def __init__(self, address: str) -> None:
        from ray.job_submission import JobSubmissionClient

        for name in _NOISY_LOGGERS:
            logging.getLogger(name).setLevel(logging.ERROR)
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise JobError(
                f"{address} is not the address of a job server, which is http://HOST:8265; inside the cluster, "
                "HOST:PORT of its head is an address to run at (distrib run)",
                field="`address`",
            )
        self.address = address
        port = parts.port or (443 if parts.scheme == "https" else 80)
        if not answers(parts.hostname, port, _CONNECT_SECONDS):
            raise LaunchError(f"no job server answers at {address}; is the cluster up, and its dashboard reachable?")
        self._token = token = find_token()
        try:
            self._client = JobSubmissionClient(address, headers=dict(token.headers) if token else None)
        except Exception as error:
            if (reason := refusal(address, token)) is not None:
                raise LaunchError(reason) from error
            raise LaunchError(f"what answers at {address} is not the job server of a Ray cluster: {error}") from error

    def describe(self, submission: Submission) -> dict[str, Any]:
        """The arguments of Ray's `submit_job`, except for the job's id and its secrets."""
        folder = os.getcwd()
        path_in(folder, submission.job)
        check_size(folder)
        environment: dict[str, Any] = {
            "working_dir": folder,
            "excludes": list(EXCLUDED),
            "env_vars": submitted_variables(submission.job.spec.failures.grace, split_secrets(submission.variables)[0]),
        }
        if submission.packages:
            environment["pip"] = list(submission.packages)
        return {
            "entrypoint": shlex.join(submission.command),
            "runtime_env": environment,
            "metadata": {RUN_KEY: submission.run_id},
        }

    def submit(self, submission: Submission) -> str:
        """Sends a job with the working directory; returns the Ray job's id.

        Raises:
            JobError: The working directory does not contain the job, or is too big.
            LaunchError: The cluster refuses the job.
        """
        arguments = self.describe(submission)
        _, hidden = split_secrets(submission.variables)
        arguments["runtime_env"]["env_vars"] |= send_secrets(self.address, self._token, hidden)
        try:
            return self._client.submit_job(submission_id=self._unused_id(submission.run_id), **arguments)
        except Exception as error:
            reason = mask(str(error), secret_values(submission.variables))
            raise LaunchError(f"the cluster at {self.address} refuses the job: {reason}") from error

    def _unused_id(self, run_id: str) -> str:
        """The run's id, or, if Ray has a job of that name already, the first unused of ID--2, ID--3, …"""
        taken = {job.id for job in self.list()}
        candidate, number = run_id, 2
        while candidate in taken:
            candidate, number = f"{run_id}--{number}", number + 1
        return candidate

    def list(self) -> list[SubmittedJob]:
        """All jobs that were submitted to the cluster, newest first."""
        jobs = self._retry(self._client.list_jobs)
        found = [_describe(details) for details in jobs if details.submission_id]
        return sorted(found, key=lambda job: job.started or 0.0, reverse=True)

    def find(self, id_: str) -> SubmittedJob:
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

    def status(self, job_id: str) -> SubmittedJob:
        """The job's present status; retries for a minute if the server does not answer."""
        return _describe(self._retry(lambda: self._client.get_job_info(job_id)))

    def _retry(self, query: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + _RETRY_SECONDS
        while True:
            try:
                return query()
            except Exception as error:
                if time.monotonic() > deadline or is_unknown_ray_job(str(error)):
                    raise LaunchError(
                        f"lost contact with the job server at {self.address}: {error}; its jobs may still run: "
                        "check with distrib status"
                    ) from error
                time.sleep(_POLL_SECONDS)

    def follow(self, job_id: str, write: Callable[[str], None]) -> SubmittedJob:
        """Passes what a job's command prints to `write`, each line once, until it has ended.

        Reconnects if the connection drops; a job has ended only once its status says so.

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
        """Follows the log, which the server sends from its beginning, and skips the characters that are known."""
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
        """Writes what the last connection has not transferred."""
        with contextlib.suppress(Exception):
            rest = self._client.get_job_logs(job_id)[printed:]
            if rest:
                write(rest)

    def logs(self, job_id: str) -> str:
        """What a job's command has printed so far."""
        return str(self._retry(lambda: self._client.get_job_logs(job_id)))

    def stop(self, job_id: str) -> None:
        """Requests a job to stop; its run takes a checkpoint first, for which Ray waits."""
        self._retry(lambda: self._client.stop_job(job_id))

    def wait(self, job_id: str, timeout_seconds: float) -> SubmittedJob:
        """Waits until a job has ended, at most until the timeout."""
        deadline = time.monotonic() + timeout_seconds
        while not (job := self.status(job_id)).is_over and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        return job


def _describe(details: JobDetails) -> SubmittedJob:
    metadata = details.metadata or {}
    return SubmittedJob(
        id=str(details.submission_id),
        run_id=metadata.get(RUN_KEY),
        status=str(details.status.value if hasattr(details.status, "value") else details.status),
        message=details.message or "",
        exit_code=details.driver_exit_code,
        started=None if details.start_time is None else details.start_time / 1000,
    )
