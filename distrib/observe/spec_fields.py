"""The fields of runs' job specs by dotted path, and those in which runs differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from distrib.errors import DistribError
from distrib.job.spec.job import JobSpec
from distrib.job.yaml.nodes import ListNode, MapNode, Node
from distrib.job.yaml.parser import parse
from distrib.job.yaml.scalars import read_plain

if TYPE_CHECKING:
    from distrib.runs.run import Run

Fields = dict[str, Any]
_PLACE_FIELDS = ("storage",)
"""Where a run is kept is no difference between two trainings."""


def spec_fields(run: Run) -> Fields:
    """Every field of a run's job.yaml with its value, defaults included, `${NAME}` not expanded.

    Empty if the file is missing or damaged. A spec of another version of this package is returned as written.
    """
    try:
        root = parse(run.job_file.read_text(encoding="utf-8"), "job.yaml")
        written = None if root is None else _read(root)
    except (OSError, ValueError, DistribError):
        return {}
    if not isinstance(written, dict):
        return {}
    with suppress(ValidationError):  # a number given by a variable, or a field of another version
        written = JobSpec.model_validate(written).model_dump(mode="json")
    return {path: value for path, value in _flatten(written, "") if path not in _PLACE_FIELDS}


def differing_fields(specs: Sequence[Fields]) -> list[str]:
    """The fields whose values are not the same in all specs, in the order of the first spec that has them."""
    known = [spec for spec in specs if spec]
    names = dict.fromkeys(name for spec in known for name in spec)
    return [name for name in names if any(spec.get(name) != known[0].get(name) for spec in known)]


def short_names(fields: Sequence[str]) -> list[str]:
    """For each dotted path its shortest ending that no other one has: `lr` for `optimizer.args.lr`."""
    return [_short_name(field, [other for other in fields if other != field]) for field in fields]


def _short_name(field: str, others: Sequence[str]) -> str:
    parts = field.split(".")
    for count in range(1, len(parts)):
        end = parts[-count:]
        if not any(other.split(".")[-count:] == end for other in others):
            return ".".join(end)
    return field


def _read(node: Node) -> Any:
    if isinstance(node, MapNode):
        return {str(key): _read(value) for key, (_, value) in node.entries.items()}
    if isinstance(node, ListNode):
        return [_read(item) for item in node.items]
    return read_plain(node.text) if node.is_plain else node.text


def _flatten(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
