"""A script that is ready to be launched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from distrib.job.launcher_names import LauncherName
from distrib.job.plan import Device, Plan, Request, make_request
from distrib.job.script import AnyJob, ScriptJob
from distrib.job.step_plan import StepPlan


@dataclass(frozen=True)
class PreparedScript:
    """A script job with its request; the counterpart of `PreparedJob`.

    Attributes:
        job: The script.
        request: What it asks of its launcher.
    """

    job: ScriptJob
    request: Request

    @property
    def inherited_datasets(self) -> None:
        """Scripts build their own datasets."""

    def plan_for(self, world_size: int) -> Plan:
        """The plan on `world_size` ranks, whose steps are not known."""
        return Plan(self.request, _unknown_steps(world_size), script=self.job.spec.script.name)

    def check_start(self, step_plan: StepPlan) -> None:
        """Checks nothing: what a script needs is not known."""

    def check_extension(self, step_plan: StepPlan) -> None:
        """Checks nothing: a script has no length."""


def prepare_script(job: ScriptJob, launcher: LauncherName, choose_device: Callable[[AnyJob], Device]) -> PreparedScript:
    """Makes a script's request.

    Raises:
        JobError: The job asks for devices that do not exist.
    """
    from distrib.compat.pytorch import dynamo

    dynamo.install()
    return PreparedScript(job, make_request(job.spec, launcher, choose_device(job)))


def _unknown_steps(world_size: int) -> StepPlan:
    return StepPlan(
        world_size=world_size,
        train_samples=0,
        eval_samples=None,
        global_batch_size=0,
        last_batch_size=0,
        steps_per_epoch=1,
        total_steps=0,
        rank_batches=(),
        last_rank_batches=(),
        micro_batches=(),
        accumulate=1,
        eval_batch_size=0,
        eval_interval_steps=0,
        log_interval_steps=1,
        save_interval_steps=0,
        save_interval_seconds=0,
        notes=(),
    )
