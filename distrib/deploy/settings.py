"""Settings of a target that no job spec knows, such as an image: read from `--with NAME=VALUE`."""

from __future__ import annotations

import types
from collections.abc import Sequence
from typing import Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from distrib.errors import JobError
from distrib.job.fields import nearest

_OPTION = "--with"


class TargetSettings(BaseModel):
    """Base of every target's settings; a field's description is its help."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    workers_per_host: int | None = Field(default=None, ge=1)
    """Workers on each host; by default one, with `placement: strict_pack` all."""


Settings = TypeVar("Settings", bound=TargetSettings)


def read_settings(kind: type[Settings], target: str, texts: Sequence[str]) -> Settings:
    """The settings in `NAME=VALUE` texts; lists and mappings collect what is given repeatedly.

    Raises:
        JobError: A name is unknown, or a value does not fit.
    """
    given: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise JobError(f"{text!r} is not NAME=VALUE", field=_OPTION)
        if name not in kind.model_fields:
            match = nearest(name, kind.model_fields)
            hint = f"; did you mean {match}?" if match else ""
            known = ", ".join(sorted(kind.model_fields))
            raise JobError(f"{target} has no setting {name}{hint} (settings: {known})", field=_OPTION)
        _add(given, name, value, kind.model_fields[name].annotation)
    try:
        return kind(**given)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise JobError(f"{name}={given.get(name)}: {first['msg'].lower()}", field=_OPTION) from error


def _add(given: dict[str, Any], name: str, value: str, annotation: Any) -> None:
    kinds = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    origins = {get_origin(kind) for kind in kinds}
    if dict in origins:
        key, equals, entry = value.partition("=")
        if not equals:
            raise JobError(f"{name} takes KEY=VALUE, not {value!r}", field=_OPTION)
        given.setdefault(name, {})[key] = entry
    elif tuple in origins:
        given.setdefault(name, []).append(value)
    else:
        given[name] = value


def describe_settings(kind: type[TargetSettings]) -> list[str]:
    """A line for each setting, with its help."""
    return [f"{name}: {field.description}" for name, field in kind.model_fields.items()]
