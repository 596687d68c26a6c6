"""Checks a job: imports what it names, builds its datasets and decides its request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from distrib.job.launcher_names import LauncherName
from distrib.job.plan import Device, Plan, Request, make_request
from distrib.job.reader import Job
from distrib.job.step_plan import Facts, StepPlan, make_step_plan
from distrib.job.target import add_import_paths
from distrib.launch.devices import check_compression
from distrib.observe.trackers.registry import check_trackers
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

    def check_start(self, step_plan: StepPlan, *, may_allocate: bool = False) -> None:
        """Checks what a first step needs: that model, optimizer and schedule can be built, and that weights fit.

        Args:
            step_plan: The plan.
            may_allocate: Whether a model that cannot be built on the meta device may be built on the CPU.

        Raises:
            JobError: Something cannot.
        """
        from distrib.train.checkpoint.warm_start import check_weights
        from distrib.train.checks.check_parts import check_parts

        check_weights(self.resolved, Path.cwd())
        check_parts(self.resolved, step_plan, may_allocate=may_allocate)

    def check_extension(self, step_plan: StepPlan) -> None:
        """Checks that a longer training can continue a shorter one; JobError if it cannot."""
        from distrib.train.checks.check_parts import check_parts
        from distrib.train.optimization.lr_schedule import check_extension

        check_extension(self.resolved)
        check_parts(self.resolved, step_plan, may_allocate=True)


def prepare(job: Job, launcher: LauncherName, choose_device: Callable[[Job], Device]) -> PreparedJob:
    """Imports what the job names, builds its datasets and makes its request.

    Args:
        job: The job.
        launcher: The name of its launcher.
        choose_device: Decides `resources.device`; called last, as it may have to wait for a connection.

    Raises:
        JobError: Anything is wrong with the job.
    """
    from distrib.compat.pytorch import dynamo
    from distrib.launch.process.fork_safety import build_to_inherit
    from distrib.launch.process.garbage import imports_uncollected

    add_import_paths(job, Path.cwd())
    dynamo.install()
    with imports_uncollected():
        resolved = ResolvedJob.resolve(job)
    check_trackers(job)
    datasets, can_inherit = build_to_inherit(resolved.build_datasets)
    request = make_request(job.spec, launcher, choose_device(job))
    check_compression(job, request)
    return PreparedJob(job, request, resolved, datasets.facts, datasets if can_inherit else None)
