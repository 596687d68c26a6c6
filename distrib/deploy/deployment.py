"""What all renderers start from: the job, the request that its plan makes, and the command that trains it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from distrib.errors import JobError
from distrib.job.plan import Device, Request, make_request
from distrib.job.reader import Job
from distrib.job.secret_names import is_secret_name
from distrib.launch.devices import check_compression
from distrib.launch.job_server import check_shared_storage
from distrib.launch.ray.cluster.packing import path_in


@dataclass(frozen=True)
class Deployment:
    """A job as it is handed to a renderer.

    Attributes:
        job: The job; its `resources.device` is decided.
        request: What the job asks for, as `distrib run` on Ray computes it.
        run_id: The id of its run, fixed so that a restarted cluster resumes it.
        command: `distrib run …`, to be executed in the folder that holds the job's code.
        variables: Environment variables for all processes of the job.
        packages: Requirements that pip installs before it starts.
        notes: Decisions that the user should know of.
    """

    job: Job
    request: Request
    run_id: str
    command: tuple[str, ...]
    variables: Mapping[str, str] = field(default_factory=dict)
    packages: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def storage(self) -> str:
        """Where the run is kept: an absolute path or a URL."""
        return os.path.expanduser(self.job.spec.storage)

    @property
    def is_on_object_store(self) -> bool:
        """Whether the run is kept on an object store, for which hosts need credentials."""
        return "://" in self.storage


def make_deployment(
    job: Job,
    run_id: str,
    arguments: Sequence[str],
    *,
    variables: Mapping[str, str],
    packages: Sequence[str] = (),
) -> Deployment:
    """The deployment of `job`, which must lie in the working directory.

    Args:
        job: The job, with what the command line changes in it.
        run_id: The id of its run.
        arguments: The arguments of `distrib run` that make the same job of the same file.
        variables: Environment variables for all processes of the job.
        packages: Requirements that pip installs before it starts.

    Raises:
        JobError: The job cannot run on hosts that do not exist yet, or a variable would put a secret into the file.
    """
    check_shared_storage(job)
    path = path_in(os.getcwd(), job)
    for name in variables:
        if is_secret_name(name):
            raise JobError(
                f"{name} looks like a secret, and rendered files can be read by others; keep it in a Secret of "
                "Kubernetes (--with env_secret=NAME), an env_file of Compose (--with env_file=FILE) or the setup of "
                "the Slurm job (--with setup='. FILE')",
                field="--env",
            )
    device, notes = _decide_device(job)
    request = make_request(job.spec, "ray", device)
    check_compression(job, request)
    fixed = [f"--device={device}"] if job.spec.resources.device == "auto" else []
    return Deployment(
        job=job,
        request=request,
        run_id=run_id,
        command=("distrib", "run", path, "--run-id", run_id, *arguments, *fixed),
        variables=variables,
        packages=tuple(packages),
        notes=notes,
    )


def _decide_device(job: Job) -> tuple[Device, tuple[str, ...]]:
    """The device of hosts that do not exist yet: `auto` becomes CUDA only if a type of GPU is named."""
    resources = job.spec.resources
    if resources.device != "auto":
        return resources.device, ()
    if resources.accelerator is not None:
        return "cuda", ()
    return "cpu", ("resources.device is auto, so the hosts have no GPUs; --device cuda asks for one per worker",)
