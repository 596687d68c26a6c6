"""Plain values out of the tree of a job's YAML, with the place of each field."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from distrib.job.fields import nearest
from distrib.job.yaml.nodes import ListNode, MapNode, Node, ScalarNode, SourceLocation
from distrib.job.yaml.scalars import read_scalar

PLAN_NUMBERS = ("$steps", "$steps_per_epoch")
"""What the plan fills in, as whole values under args."""

_DOLLAR_NAME = re.compile(r"\$\w*")


@dataclass
class Values:
    """A job's YAML as plain data.

    Attributes:
        data: The values, environment variables put in.
        places: Where each field was written, by dotted path; the root's path is empty.
        problems: Fields whose value cannot be had, with the reason.
    """

    data: Any = None
    places: dict[str, SourceLocation] = field(default_factory=dict)
    problems: list[tuple[str, str]] = field(default_factory=list)


def read_values(root: Node) -> Values:
    """Reads every value of the tree; what cannot be read is None, and among the problems."""
    values = Values()
    values.data = _read(root, (), root.place, values)
    return values


def _read(node: Node, path: tuple[str, ...], place: SourceLocation, values: Values) -> Any:
    values.places.setdefault(".".join(path), place)
    if isinstance(node, MapNode):
        entries = node.entries.items()
        return {key: _read(value, (*path, str(key)), written.place, values) for key, (written, value) in entries}
    if isinstance(node, ListNode):
        return [_read(item, (*path, str(index)), item.place, values) for index, item in enumerate(node.items)]
    try:
        _refuse_unknown_number(node, path)
        return read_scalar(node.text, is_plain=node.is_plain)
    except ValueError as error:
        values.problems.append((".".join(path), str(error)))
        return None


def _refuse_unknown_number(node: ScalarNode, path: tuple[str, ...]) -> None:
    is_under_args = "args" in path[:-1]
    if not _DOLLAR_NAME.fullmatch(node.text) or (is_under_args and node.text in PLAN_NUMBERS):
        return
    if node.text in PLAN_NUMBERS:
        raise ValueError(f"{node.text} is known only under args")
    guess = nearest(node.text, PLAN_NUMBERS) if is_under_args else None
    if guess:
        raise ValueError(f"'{node.text}' is not known; did you mean {guess}?")
    name = node.text[1:] or "NAME"
    numbers = f", and the plan's numbers {' and '.join(PLAN_NUMBERS)}" if is_under_args else ""
    raise ValueError(f"'{node.text}' is not known; an environment variable is written ${{{name}}}{numbers}")
