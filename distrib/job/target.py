"""Resolves targets (`module:attribute`) to Python objects, with errors for the author of the job."""

from __future__ import annotations

import functools
import importlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Any

from distrib.job.fields import nearest
from distrib.job.import_errors import explain_attribute, explain_import
from distrib.job.reader import Job
from distrib.job.source_folder import source_folder
from distrib.job.spec.targets import Target

MAX_SIGNATURE_LENGTH = 300

_BY_NAME = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
_BY_POSITION = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
_VARIADIC = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)


def add_import_paths(job: Job, working_directory: Path) -> None:
    """Puts the working directory, the spec's folder and the project's source folder at the front of `sys.path`.

    The project is that of the nearest pyproject.toml around the spec, or else around the working directory.
    """
    folders = [os.path.abspath(working_directory), os.path.abspath(job.folder)]
    source = source_folder(Path(folders[1])) or source_folder(Path(folders[0]))
    paths = list(dict.fromkeys([*folders, *([] if source is None else [str(source)])]))
    sys.path[:] = [*paths, *(path for path in sys.path if path not in paths)]


def resolve(job: Job, field: str, target: Target) -> Any:
    """Imports the class or function that `target` names.

    Args:
        job: The job, for the location of errors.
        field: The dotted path of the target in the spec.
        target: What to import.

    Raises:
        JobError: There is no such module or attribute, importing the module fails, or the attribute is not
            callable.
    """
    module_name, _, attribute = target.target.partition(":")
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        raise job.error(field, explain_import(error, module_name, job.folder)) from error
    value: Any = module
    for name in attribute.split("."):
        try:
            value = getattr(value, name)
        except AttributeError as error:
            raise job.error(field, explain_attribute(target.target, module, value, name)) from error
        except Exception as error:  # a module-level __getattr__ runs user code
            message = f"'{target.target}' cannot be read from its module: {type(error).__name__}: {error}"
            raise job.error(field, message) from error
    if not callable(value):
        message = f"'{target.target}' is of type {type(value).__name__} and cannot be called; name a class or function"
        raise job.error(field, message)
    return value


def find_callable(job: Job, field: str, target: Target, *, num_positional: int = 0) -> Callable[..., Any]:
    """Imports the class or function that `target` names and checks that it accepts the target's args.

    Args:
        job: The job, for the location of errors.
        field: The dotted path of the target in the spec.
        target: What to import.
        num_positional: The number of positional arguments that distrib passes.

    Raises:
        JobError: The target cannot be imported or called, or it does not accept its args.
    """
    function: Callable[..., Any] = resolve(job, field, target)
    check_arguments(job, field, function, target.args, num_positional=num_positional)
    return function


def bind(job: Job, field: str, target: Target, *, num_positional: int) -> Callable[..., Any]:
    """The function that `target` names with the target's args bound; raises like `find_callable`."""
    return functools.partial(find_callable(job, field, target, num_positional=num_positional), **target.args)


def check_arguments(
    job: Job, field: str, function: Callable[..., Any], args: Mapping[str, Any], *, num_positional: int = 0
) -> None:
    """Checks that `function` accepts `args`; callables without a signature pass.

    Args:
        job: The job, for the location of errors.
        field: The dotted path of the target in the spec.
        function: A class or function.
        args: The keyword arguments of the spec.
        num_positional: The number of positional arguments that distrib passes, such as an optimizer's parameters.

    Raises:
        JobError: An argument is unknown or missing.
    """
    try:
        parameters = list(signature(function).parameters.values())
    except (TypeError, ValueError):
        return
    taken = _taken_by_position(parameters, num_positional)
    name = getattr(function, "__qualname__", type(function).__qualname__)
    shown = f"{name}{_compact(parameters)}"
    if taken is None:
        raise job.error(field, f"{name} must accept {num_positional} positional argument(s); its signature is {shown}")
    by_name = [parameter.name for parameter in parameters if parameter.kind in _BY_NAME]
    free = [other for other in by_name if other not in taken]
    takes_any = any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters)
    for argument in args:
        if argument in by_name and argument in taken:
            message = f"distrib passes '{argument}' to {name}; remove it"
            raise job.error(f"{field}.args.{argument}", message)
        if argument not in free and not takes_any:
            match = nearest(argument, free)
            advice = f"did you mean '{match}'? Its" if match else "its"
            message = f"{name} has no argument '{argument}'; {advice} signature is {shown}"
            raise job.error(f"{field}.args.{argument}", message)
    given = {*taken, *(argument for argument in args if argument in free)}
    for parameter in parameters:
        is_needed = parameter.default is Parameter.empty and parameter.kind not in _VARIADIC
        if is_needed and parameter.name not in given:
            raise job.error(f"{field}.args", f"{name} needs the argument '{parameter.name}'; its signature is {shown}")


def _taken_by_position(parameters: Sequence[Parameter], num_positional: int) -> list[str] | None:
    """Names of the parameters filled by positional arguments; None if there are too few parameters."""
    names = [parameter.name for parameter in parameters if parameter.kind in _BY_POSITION]
    takes_any = any(parameter.kind is Parameter.VAR_POSITIONAL for parameter in parameters)
    return names[:num_positional] if takes_any or len(names) >= num_positional else None


def _compact(parameters: Sequence[Parameter]) -> str:
    """A signature without annotations, truncated if it is long."""
    bare = [parameter.replace(annotation=Parameter.empty) for parameter in parameters]
    text = str(Signature(bare))
    return text if len(text) <= MAX_SIGNATURE_LENGTH else f"{text[:MAX_SIGNATURE_LENGTH]}…)"
