"""What `distrib run` runs: a job of a YAML file, or a script with its arguments."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from distrib.cli.options import SCRIPT_SUFFIXES
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
    if name.endswith(SCRIPT_SUFFIXES):
        return ScriptJob.of_command(Script(file=name, args=list(arguments)), overrides)
    if name.startswith("-"):
        given = " ".join([name, *arguments])
        raise JobError(f"there is no script before the arguments {given!r}; name it first: SCRIPT -- {given}")
    if arguments:
        raise JobError(
            f"{name} is no script, so it takes no arguments; give {arguments[0]!r} to a script's job: script.args"
        )
    return load_any_job(name, overrides)


def unknown_option_advice(arguments: Sequence[str], option: str) -> str | None:
    """What to write instead of an option that a command does not have: an option of the script, or a field of the job.

    Args:
        arguments: The command and its arguments.
        option: The option, such as `--epochs`.
    """
    verb, *rest = arguments
    before = rest[: rest.index("--")] if "--" in rest else rest
    scripts = [name for name in before if name.endswith(SCRIPT_SUFFIXES)]
    if verb in ("run", "submit") and (scripts or "-m" in before):
        what = f"-m {before[before.index('-m') + 1]}" if "-m" in before[:-1] else scripts[0] if scripts else "-m MODULE"
        return f"options of a script come last, after --: distrib {verb} {what} … -- {option} …"
    from distrib.job.fields import all_fields

    name = option.lstrip("-").replace("-", "_")
    fields = [field for field in all_fields() if field.rpartition(".")[2] == name]
    is_of_job = verb in ("run", "submit", "plan", "scale") and fields
    return f"set the job's field: --set {fields[0]}=…" if is_of_job else None


def run_arguments(job: AnyJob) -> tuple[list[str], list[str]]:
    """How `distrib run` is given a job in a copy of the working directory: its first arguments, and its last."""
    from distrib.job.script import ScriptJob

    if not isinstance(job, ScriptJob) or not job.is_command:
        return [os.path.relpath(job.path)], []
    script = job.spec.script
    what = ["-m", str(script.module)] if script.file is None else [os.path.relpath(script.file)]
    return what, ["--", *script.args] if script.args else []


def check_training_options(job: AnyJob, *, extend: bool) -> None:
    """Refuses options that only a declared training has.

    Raises:
        JobError: One is given for a script.
    """
    from distrib.job.script import ScriptJob

    if isinstance(job, ScriptJob) and extend:
        raise JobError("a script decides itself how long it trains; start another run of it", field="--extend")
