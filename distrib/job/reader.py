"""A job: the spec read from its YAML file, with the source location of each field."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from distrib.errors import JobError
from distrib.job.fields import nearest
from distrib.job.overrides import apply_override
from distrib.job.problems import problems_of
from distrib.job.spec.job import JobSpec
from distrib.job.spec.section import Section
from distrib.job.values import Values, read_values
from distrib.job.yaml.nodes import MapNode, ScalarNode, SourceLocation, write
from distrib.job.yaml.parser import parse

MAX_FILE_BYTES = 2**20

Spec = TypeVar("Spec", bound=Section)


@dataclass(frozen=True)
class Job:
    """A job spec, its file, and the source locations of its fields; picklable.

    Attributes:
        spec: The validated spec.
        path: The absolute path of the spec's file.
        text: The spec as YAML with overrides applied and `${NAME}` unexpanded. Reading it gives the same spec;
            without overrides it is the file's own text.
        locations: Where each field was set, by dotted path: a line of the file, or an override.
        shown_path: The path as the user gave it, for error messages.
        file_text: The file's own text.
        overrides: The overrides applied to the file, in order.
    """

    spec: JobSpec
    path: Path
    text: str
    locations: Mapping[str, SourceLocation]
    shown_path: str
    file_text: str
    overrides: tuple[str, ...] = ()

    @classmethod
    def load(cls, path: str | Path, overrides: Sequence[str] = ()) -> Job:
        """Reads and validates a job.

        Args:
            path: The spec's YAML file.
            overrides: Changes such as `train.epochs=3`, as with `--set`. They take precedence over the file, and later
                ones over earlier ones.

        Raises:
            JobError: The job is wrong; the message lists every problem with its line and field.
        """
        return _read_job(Path(os.path.abspath(path)), str(path), _read_file(path), tuple(overrides))

    def override(self, overrides: Sequence[str]) -> Job:
        """This job with further overrides applied.

        Raises:
            JobError: The job is wrong; the message lists every problem with its line and field.
        """
        return _read_job(self.path, self.shown_path, self.file_text, (*self.overrides, *overrides))

    @property
    def lines(self) -> Mapping[str, int]:
        """The line of each field in the file, from 1, by dotted path; fields set by overrides are left out."""
        lines = {field: location.line for field, location in self.locations.items() if field}
        return {field: line for field, line in lines.items() if line is not None}

    @property
    def name(self) -> str:
        """The job's name."""
        return self.spec.name

    @property
    def folder(self) -> Path:
        """The folder of the spec's file."""
        return self.path.parent

    def error(self, field: str, message: str) -> JobError:
        """An error about `field`, located at the field or at the nearest enclosing one."""
        return _location_of(field, self.locations).error(message, field)


def _read_file(path: str | Path) -> str:
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError as error:
        raise JobError(f"no such file{_similar_file(Path(path))}", file=path) from error
    except IsADirectoryError as error:
        raise JobError("is a folder; name the YAML file in it", file=path) from error
    except OSError as error:
        raise JobError(f"cannot be read: {error.strerror or error}", file=path) from error
    if len(content) > MAX_FILE_BYTES:
        raise JobError("is larger than 1 MiB, so it cannot be a job spec; name the job's YAML file", file=path)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise JobError(
            "is not UTF-8 text; save it as UTF-8, or name the job's YAML file", file=path, line=line
        ) from error


def _similar_file(path: Path) -> str:
    try:
        match = nearest(path.name, [other.name for other in path.parent.iterdir() if other.is_file()])
    except OSError:
        return ""
    return f"; did you mean '{path.parent / match}'?" if match else ""


def read_spec(
    path: str | Path, overrides: Sequence[str], model: type[Spec], *, text: str | None = None
) -> tuple[Spec, str]:
    """Reads a spec of another kind than a job's.

    Args:
        path: The spec's file, or what stands for it in messages if `text` is given.
        overrides: Changes such as `resources.workers=3`.
        model: The kind of spec.
        text: The content instead of the file's.

    Returns:
        The spec, and its YAML with overrides applied.

    Raises:
        JobError: The spec is wrong.
    """
    content = _read_file(path) if text is None else text
    root = _parse_mapping(content, str(path), model, overrides)
    return _check(read_values(root), model), write(root) if overrides else content


def is_mapping_with(path: str | Path, field: str) -> bool:
    """Whether a YAML file is a mapping with this field; False for a file that cannot be parsed.

    Raises:
        JobError: The file cannot be read.
    """
    try:
        root = parse(_read_file(path), str(path))
    except JobError:
        return False
    return isinstance(root, MapNode) and root.get(field) is not None


def _parse_mapping(text: str, shown_path: str, model: type[Section], overrides: Sequence[str]) -> MapNode:
    root = parse(text, shown_path)
    if root is None or (isinstance(root, ScalarNode) and root.is_null):
        raise JobError(f"is empty; a job has the fields {', '.join(model.model_fields)}", file=shown_path)
    if not isinstance(root, MapNode):
        raise root.location.error(f"expected a mapping with the fields {', '.join(model.model_fields)}")
    for override in overrides:
        apply_override(root, override, model)
    return root


def _read_job(path: Path, shown_path: str, file_text: str, overrides: tuple[str, ...]) -> Job:
    root = _parse_mapping(file_text, shown_path, JobSpec, overrides)
    values = read_values(root)
    return Job(
        spec=_check(values, JobSpec),
        path=path,
        text=write(root) if overrides else file_text,
        locations=values.locations,
        shown_path=shown_path,
        file_text=file_text,
        overrides=overrides,
    )


def _check(values: Values, model: type[Spec]) -> Spec:
    if values.problems:
        raise _joined(values.problems, values.locations)
    try:
        return model.model_validate(values.data)
    except ValidationError as error:
        raise _joined(problems_of(error, model), values.locations) from error


def _joined(problems: Iterable[tuple[str, str]], locations: Mapping[str, SourceLocation]) -> JobError:
    """One error that lists all problems by line; problems caused by overrides come last."""
    errors = [_location_of(field, locations).error(message, field or None) for field, message in problems]
    errors.sort(key=lambda error: (error.line is None, error.line or 0))
    return errors[0] if len(errors) == 1 else JobError("\n".join(map(str, errors)))


def _location_of(field: str, locations: Mapping[str, SourceLocation]) -> SourceLocation:
    while field and field not in locations:
        field = field.rpartition(".")[0]
    return locations[field]
