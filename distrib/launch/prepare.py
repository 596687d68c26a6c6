"""Checks a job: imports what it names, builds its datasets and decides its request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from distrib.job.plan import Device, Facts, LauncherName, Plan, Request, make_request, make_step_plan
from distrib.job.reader import Job
from distrib.job.target import add_import_paths
from distrib.launch.devices import check_compression
from distrib.train.resolved_job import Datasets, ResolvedJob


@dataclass(frozen=True)
class PreparedJob:
    """A job that has passed every check, in a process that has imported all that it names.

    Attributes:
        job: The job.
        request: What it asks of its launcher.
        resolved: The callables that it names.
        facts: The lengths of its datasets.
        inherited_datasets: The datasets if forked ranks may use them as they are; None if each rank builds its own.
    """

    job: Job
    request: Request
    resolved: ResolvedJob
    facts: Facts
    inherited_datasets: Datasets | None

    def plan_for(self, world_size: int) -> Plan:
        """The plan on `world_size` ranks."""
        return Plan(self.request, make_step_plan(self.job.spec, self.facts, world_size))

    def check_weights(self) -> None:
        """Checks that the file of `model.weights`, if there is one, fits the model; JobError if it does not."""
        from distrib.train.checkpoint.warm_start import check_weights

        check_weights(self.resolved, Path.cwd())


def prepare(job: Job, launcher: LauncherName, choose_device: Callable[[Job], Device]) -> PreparedJob:
    """Imports what the job names, builds its datasets and makes its request.

    Args:
        job: The job.
        launcher: The name of its launcher.
        choose_device: Decides `resources.device`; called last, as it may have to wait for a connection.

    Raises:
        JobError: Anything is wrong with the job.
    """
    from distrib.compat import torch_dynamo
    from distrib.launch.process.fork_safety import build_to_inherit

    add_import_paths(job, Path.cwd())
    torch_dynamo.install()
    resolved = ResolvedJob.resolve(job)
    datasets, can_inherit = build_to_inherit(resolved.build_datasets, job.spec.train.seed)
    request = make_request(job.spec, launcher, choose_device(job))
    check_compression(job, request)
    return PreparedJob(job, request, resolved, datasets.facts, datasets if can_inherit else None)
