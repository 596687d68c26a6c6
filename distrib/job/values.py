"""Reads plain values from a job's YAML tree, with the source location of each field."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from distrib.job.fields import nearest
from distrib.job.yaml.nodes import ListNode, MapNode, Node, ScalarNode, SourceLocation
from distrib.job.yaml.scalars import read_scalar

PLAN_NUMBERS = ("$steps", "$steps_per_epoch")
"""Numbers that the plan fills in; allowed as whole values under the args of optimizers and schedules."""

_FILLED_IN = ("optimizer", "optimizers", "schedule")

_DOLLAR_NAME = re.compile(r"\$\w*")


@dataclass
class Values:
    """A job's YAML as plain data.

    Attributes:
        data: The values with environment variables expanded.
        locations: Where each field was set, by dotted path; the root's path is empty.
        problems: Fields whose value cannot be read, with the reason.
    """

    data: Any = None
    locations: dict[str, SourceLocation] = field(default_factory=dict)
    problems: list[tuple[str, str]] = field(default_factory=list)


def read_values(root: Node) -> Values:
    """Reads every value of the tree; a value that cannot be read is None and listed in `problems`."""
    values = Values()
    values.data = _read(root, (), root.location, values)
    return values


def _read(node: Node, path: tuple[str, ...], location: SourceLocation, values: Values) -> Any:
    values.locations.setdefault(".".join(path), location)
    if isinstance(node, MapNode):
        entries = node.entries.items()
        return {key: _read(value, (*path, str(key)), written.location, values) for key, (written, value) in entries}
    if isinstance(node, ListNode):
        return [_read(item, (*path, str(index)), item.location, values) for index, item in enumerate(node.items)]
    try:
        _refuse_unknown_number(node, path)
        return read_scalar(node.text, is_plain=node.is_plain)
    except ValueError as error:
        values.problems.append((".".join(path), str(error)))
        return None


def _refuse_unknown_number(node: ScalarNode, path: tuple[str, ...]) -> None:
    is_under_args = "args" in path[:-1] and path[0] in _FILLED_IN
    if not _DOLLAR_NAME.fullmatch(node.text) or (is_under_args and node.text in PLAN_NUMBERS):
        return
    if node.text in PLAN_NUMBERS:
        raise ValueError(f"{node.text} is available only under the args of optimizer and schedule")
    guess = nearest(node.text, PLAN_NUMBERS) if is_under_args else None
    if guess:
        raise ValueError(f"'{node.text}' is unknown; did you mean {guess}?")
    name = node.text[1:] or "NAME"
    numbers = f"; the plan's numbers are {' and '.join(PLAN_NUMBERS)}" if is_under_args else ""
    raise ValueError(f"'{node.text}' is unknown; an environment variable is written ${{{name}}}{numbers}")
