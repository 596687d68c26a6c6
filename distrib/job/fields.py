"""The fields of the job spec by dotted path, and suggestions for misspelled ones."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import StringConstraints

from distrib.job.spec.job import JobSpec
from distrib.job.spec.section import Section


@dataclass(frozen=True)
class Shape:
    """What can be nested under a field.

    Attributes:
        section: The part of the spec that defines its keys, if any.
        named: The shape of every entry if the user chooses the keys, as in `metrics`.
        is_free: Whether anything is allowed, as under `args`.
    """

    section: type[Section] | None = None
    named: Shape | None = None
    is_free: bool = False

    def child(self, key: str) -> Shape | None:
        """The shape of the field `key`; None if there is no such key."""
        if self.is_free:
            return self
        if self.named is not None:
            return self.named
        if self.section is not None and key in self.section.model_fields:
            return _shape(self.section.model_fields[key].annotation)
        return None


ROOT = Shape(section=JobSpec)


def _shape(annotation: Any) -> Shape:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _shape(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        shapes = [_shape(argument) for argument in get_args(annotation)]
        return next((shape for shape in shapes if shape != Shape()), Shape())
    if origin is dict:
        value = get_args(annotation)[1]
        return Shape(is_free=True) if value is Any else Shape(named=_shape(value))
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return Shape(section=annotation)
    return Shape()


def shape_at(path: Sequence[str], root: Shape = ROOT) -> Shape | None:
    """The shape of the field at `path`; None if the spec has no such field."""
    shape: Shape | None = root
    for key in path:
        shape = shape.child(key) if shape else None
    return shape


def pattern_at(path: Sequence[str], root: Shape = ROOT) -> str | None:
    """The regular expression for the text of the field at `path`; None if any text will do."""
    parent = shape_at(path[:-1], root) if path else None
    field = parent.section.model_fields.get(path[-1]) if parent and parent.section else None
    if field is None:
        return None
    metadata = [*field.metadata]
    for argument in get_args(field.annotation):  # as in Optional[Annotated[str, …]]
        metadata += getattr(argument, "__metadata__", ())
    patterns = [each.pattern for each in metadata if isinstance(each, StringConstraints) and each.pattern]
    return str(patterns[0]) if patterns else None


def all_fields(shape: Shape = ROOT, prefix: str = "") -> Iterator[str]:
    """The dotted paths of all fields of the spec, except those whose names the user chooses."""
    for key in shape.section.model_fields if shape.section else ():
        yield prefix + key
        child = shape.child(key)
        if child is not None:
            yield from all_fields(child, f"{prefix}{key}.")


def absent_from_script(key: str, section: type[Section] | None) -> str | None:
    """Explains that a script's spec has no such field although a training job's has; None if that is not the case."""
    if section is None or "script" not in section.model_fields or key not in JobSpec.model_fields:
        return None
    return f"a script has no '{key}' here: it trains as its own code and arguments say"


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The closest match to `name` among `names`, or None if none is close."""
    by_lowercase = {candidate.lower(): candidate for candidate in names}
    matches = difflib.get_close_matches(name.lower(), by_lowercase, n=1, cutoff=0.6)
    return by_lowercase[matches[0]] if matches else None


def nearest_field(field: str, fields: Iterable[str]) -> str | None:
    """The dotted path most likely meant by `field`: the same key elsewhere, or a similar spelling."""
    candidates = sorted(fields, key=lambda candidate: (candidate.count("."), candidate))
    last = field.rpartition(".")[2]
    same_name = [candidate for candidate in candidates if candidate.rpartition(".")[2] == last]
    if same_name:
        return nearest(field, same_name) or same_name[0]
    if match := nearest(field, candidates):
        return match
    by_last_name = {candidate.rpartition(".")[2]: candidate for candidate in reversed(candidates)}
    match = nearest(last, by_last_name)
    return by_last_name[match] if match else None
