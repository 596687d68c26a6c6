"""What the ranks of a script have in common."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from distrib.job.script import ScriptJob
from distrib.train.context import AttemptConfig, RankConfig, RankContext

if TYPE_CHECKING:
    from distrib.train.resolved_job import Datasets
    from distrib.train.worker import RankResult


@dataclass(frozen=True, kw_only=True)
class ScriptConfig(RankConfig):
    """What all ranks of an attempt to run a script have in common.

    Attributes:
        job: The script.
    """

    job: ScriptJob
    is_script: ClassVar[bool] = True

    def moved_to(self, folder: Path) -> ScriptConfig:
        """The same with another working directory, and the job's file in it."""
        job, script = self.job, self.job.spec.script
        path = folder / job.path.relative_to(self.working_directory)
        if script.file is not None:  # it may have been given by its full path
            file = os.path.relpath(self.working_directory / script.file, self.working_directory)
            script = script.model_copy(update={"file": file})
        job = replace(job, path=path, spec=job.spec.model_copy(update={"script": script}))
        return replace(self, working_directory=folder, job=job)

    def run_rank(self, context: RankContext, datasets: Datasets | None) -> RankResult:
        """Runs the script as one rank."""
        from distrib.launch.script.program import run_script

        return run_script(self, context)


AnyConfig = AttemptConfig | ScriptConfig
"""The configuration of ranks that train a job or run a script."""
