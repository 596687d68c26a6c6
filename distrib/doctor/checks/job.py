"""Can the job's targets be imported and its datasets be built?"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from distrib.doctor.check import Situation
from distrib.doctor.finding import Finding
from distrib.errors import DistribError
from distrib.job.reader import Job
from distrib.job.target import add_import_paths
from distrib.launch.fleet import Fleet, NoAnswer

_SECONDS = 120.0


class JobTargets:
    """Does on this machine what `plan` does: imports the job's targets, builds its datasets and checks its weights.

    Hosts of a cluster receive the same working directory from this machine.
    """

    name = "job"

    def run(self, situation: Situation, fleet: Fleet) -> Iterable[Finding]:
        """One finding: what is wrong with the job, or how much it trains."""
        if situation.job is None:
            return
        from distrib.launch.local.fleet import LocalFleet

        with LocalFleet() as here:
            member = here.members[0]
            arguments = (situation.job, str(Path.cwd()))
            answer = here.call(load_targets, {member.name: arguments}, _SECONDS)[member.name]
        if isinstance(answer, NoAnswer):
            yield Finding(self.name, "failed", answer.reason, fix="correct the job; `distrib plan` shows the same")
        else:
            status, message = answer
            fix = "" if status == "ok" else "correct the job; `distrib plan` shows the same"
            yield Finding(self.name, status, message, fix=fix)


def load_targets(job: Job, working_directory: str) -> tuple[str, str]:
    """Imports the job's targets and builds its datasets; returns a finding's status and message."""
    from distrib.train.checkpoint.warm_start import check_weights
    from distrib.train.resolved_job import ResolvedJob

    add_import_paths(job, Path(working_directory))
    try:
        resolved = ResolvedJob.resolve(job)
        facts = resolved.build_datasets().facts
        check_weights(resolved, Path(working_directory))
    except DistribError as error:
        return "failed", str(error)
    evaluated = "" if facts.eval_samples is None else f", {facts.eval_samples:,} to evaluate"
    return "ok", f"{job.name}: {facts.train_samples:,} samples to train on{evaluated}"
