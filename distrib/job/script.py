"""A script to run on every rank instead of a declared training: from a spec with `script`, or from the command line."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Self

import yaml
from pydantic import ConfigDict, Field, StringConstraints, model_validator

from distrib.errors import JobError
from distrib.job.reader import Job, is_mapping_with, read_spec
from distrib.job.spec.patterns import RUN_NAME_PATTERN
from distrib.job.spec.resources import Failures, Resources
from distrib.job.spec.section import Resume, Section
from distrib.job.yaml.nodes import SourceLocation


class Script(Section):
    """What each rank runs as `__main__`."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["file"]}, {"required": ["module"]}]})

    file: Annotated[str | None, Resume.MUST_MATCH] = None
    """A Python file, relative to the working directory; exclusive with `module`."""
    module: Annotated[str | None, Resume.MUST_MATCH] = None
    """A module or package, as after `python -m`."""
    args: Annotated[list[str], Resume.MUST_MATCH] = Field(default_factory=list)
    """Its arguments."""

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.file is None) == (self.module is None):
            raise ValueError("needs either file or module")
        return self

    @property
    def name(self) -> str:
        """The file or module, for people."""
        return self.file or f"-m {self.module}"


class ScriptSpec(Section):
    """A script job: what to run, with which resources."""

    name: Annotated[str, StringConstraints(pattern=RUN_NAME_PATTERN), Resume.MAY_DIFFER]
    """Name of the job and prefix of its run ids."""
    script: Annotated[Script, Resume.BY_FIELD]
    """What each rank runs."""
    resources: Annotated[Resources, Resume.MAY_DIFFER] = Field(default_factory=Resources)
    """The resources that the job needs."""
    failures: Annotated[Failures, Resume.MAY_DIFFER] = Field(default_factory=Failures)
    """How to handle failures and stops."""
    storage: Annotated[str, Resume.MAY_DIFFER] = "runs"
    """The folder for runs, or the URL of an object store."""


@dataclass(frozen=True)
class ScriptJob:
    """A script job and where it comes from; picklable.

    Attributes:
        spec: The validated spec.
        path: The absolute path of the spec's file; for a script of the command line, of where it would be.
        text: The spec as YAML.
        is_command: Whether it comes from the command line, so that there is no file.
    """

    spec: ScriptSpec
    path: Path
    text: str
    is_command: bool = False

    @classmethod
    def load(cls, path: str | Path, overrides: Sequence[str] = ()) -> ScriptJob:
        """Reads a spec with `script`.

        Raises:
            JobError: The spec is wrong.
        """
        spec, text = read_spec(path, overrides, ScriptSpec)
        job = cls(spec, Path(os.path.abspath(path)), text)
        job.check()
        return job

    @classmethod
    def of_command(cls, script: Script, overrides: Sequence[str] = ()) -> ScriptJob:
        """A script of the command line.

        Raises:
            JobError: It does not exist, or an override is wrong.
        """
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(script.file).stem if script.file else str(script.module))
        values = {"name": name.strip("-._") or "script", "script": script.model_dump(exclude_defaults=True)}
        text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
        spec, text = read_spec(f"the command ({script.name})", overrides, ScriptSpec, text=text)
        job = cls(spec, Path.cwd() / "job.yaml", text, is_command=True)
        job.check()
        return job

    @property
    def name(self) -> str:
        """The job's name."""
        return self.spec.name

    def override(self, overrides: Sequence[str]) -> ScriptJob:
        """This job with overrides applied; JobError if one is wrong."""
        spec, text = read_spec(self.spec.script.name, overrides, ScriptSpec, text=self.text)
        return replace(self, spec=spec, text=text)

    @property
    def folder(self) -> Path:
        """The folder of the spec's file."""
        return self.path.parent

    def check(self) -> None:
        """Raises JobError if the script's file or the module's package does not exist."""
        file, module = self.spec.script.file, self.spec.script.module
        if module is not None and not _is_importable(module.partition(".")[0]):
            raise JobError(f"there is no module {module} here or among the installed ones")
        if module is not None and (problem := _problem_of_submodule(module)) is not None:
            raise JobError(problem)
        if file is not None and not Path(file).is_file():
            is_folder = Path(file).is_dir()
            raise JobError(
                "is a folder; name the Python file in it" if is_folder else "there is no such script", file=file
            )

    def error(self, field: str, message: str) -> JobError:
        """An error about a field."""
        return SourceLocation(self.spec.script.name).error(message, field)


def _is_importable(package: str) -> bool:
    """Whether a top-level module exists in the working directory or where Python looks for modules."""
    if any((Path.cwd() / name).exists() for name in (package, f"{package}.py")):
        return True
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        return False


def _problem_of_submodule(module: str) -> str | None:
    """Why a module of a package in the working directory cannot be run; the package is not imported to find out."""
    *packages, name = module.split(".")
    folder = Path.cwd().joinpath(*packages)
    is_package = (folder / name / "__init__.py").is_file()
    if is_package and not any((folder / name).glob("__main__*")):
        return f"{module} is a package without a __main__.py; name a module in it"
    if not packages or not (folder / "__init__.py").is_file() or any(folder.glob(f"{name}*")):
        return None
    if "__path__" in (folder / "__init__.py").read_text(encoding="utf-8", errors="replace"):
        return None  # it may have modules elsewhere
    return f"there is no module {module}: nothing in {'/'.join(packages)} has that name"


AnyJob = Job | ScriptJob
"""A job of either kind; both have a name, resources, failures and storage."""


def load_any_job(path: str | Path, overrides: Sequence[str] = ()) -> AnyJob:
    """Reads a job of either kind, by whether its spec has `script`.

    Raises:
        JobError: The job is wrong.
    """
    return ScriptJob.load(path, overrides) if is_mapping_with(path, "script") else Job.load(path, overrides)
