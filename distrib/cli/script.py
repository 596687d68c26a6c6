"""What `distrib run` runs: a job of a YAML file, or a script with its arguments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from distrib.errors import JobError

if TYPE_CHECKING:
    from distrib.job.script import AnyJob

RunnableArgument = Annotated[
    str | None,
    typer.Argument(metavar="JOB|SCRIPT", help="The job's YAML file, or a Python script.", show_default=False),
]
ArgumentsArgument = Annotated[
    list[str] | None, typer.Argument(metavar="[-- ARG…]", help="The script's arguments.", show_default=False)
]
ModuleOption = Annotated[
    str | None, typer.Option("-m", "--module", metavar="MODULE", help="Run a module, as python -m does.")
]
MaxRestartsOption = Annotated[
    int | None, typer.Option("--max-restarts", min=0, metavar="N", help="Restarts after a lost process.")
]
_SCRIPT_SUFFIXES = (".py", ".pyw", ".pyc")


def load_runnable(name: str | None, module: str | None, arguments: Sequence[str], overrides: Sequence[str]) -> AnyJob:
    """Reads a job, or describes a script.

    Args:
        name: The job's file or the script's; with `module` the first of the arguments.
        module: A module to run.
        arguments: What follows.
        overrides: Changes such as `resources.workers=3`.

    Raises:
        JobError: The job or the command line is wrong.
    """
    from distrib.job.script import Script, ScriptJob, load_any_job

    if module is not None:
        values = [*([] if name is None else [name]), *arguments]
        return ScriptJob.of_command(Script(module=module, args=values), overrides)
    if name is None:
        raise JobError("name a job's YAML file or a Python script, or a module with -m")
    if name.endswith(_SCRIPT_SUFFIXES):
        return ScriptJob.of_command(Script(file=name, args=list(arguments)), overrides)
    if arguments:
        raise JobError(
            f"{name} is no script, so it takes no arguments; give {arguments[0]!r} to a script's job: script.args"
        )
    return load_any_job(name, overrides)


def check_training_options(job: AnyJob, *, extend: bool) -> None:
    """Refuses options that only a declared training has.

    Raises:
        JobError: One is given for a script.
    """
    from distrib.job.script import ScriptJob

    if isinstance(job, ScriptJob) and extend:
        raise JobError("a script decides itself how long it trains; change its arguments", field="--extend")
