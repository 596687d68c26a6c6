"""A job's YAML tree; each node has its source location, so that errors can name the line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

import yaml

from distrib.errors import JobError
from distrib.job.yaml.scalars import Scalar, read_plain


@dataclass(frozen=True)
class SourceLocation:
    """Where a value was set: a line of a file (from 1), or a `--set` on the command line (no line)."""

    source: str
    line: int | None = None

    def error(self, message: str, field: str | None = None) -> JobError:
        """A JobError at this location."""
        return JobError(message, file=self.source, line=self.line, field=field)


@dataclass(frozen=True)
class ScalarNode:
    """A single value as written; `is_plain` means without quotes."""

    location: SourceLocation
    text: str
    is_plain: bool = True

    @property
    def is_null(self) -> bool:
        """Whether it is null in any spelling."""
        return self.is_plain and self.text in ("", "~", "null", "Null", "NULL")


@dataclass(frozen=True)
class ListNode:
    """A sequence."""

    location: SourceLocation
    items: list[Node] = field(default_factory=list)


@dataclass(frozen=True)
class MapNode:
    """A mapping; each value is stored with its key as written."""

    location: SourceLocation
    entries: dict[Scalar, tuple[ScalarNode, Node]] = field(default_factory=dict)

    def get(self, key: Scalar) -> Node | None:
        """The value at `key`, or None."""
        entry = self.entries.get(key)
        return None if entry is None else entry[1]

    def put(self, key: str, value: Node) -> None:
        """Sets the value at `key`; an existing key keeps its position."""
        self.entries[key] = (ScalarNode(value.location, key, is_plain=read_plain(key) == key), value)


Node = ScalarNode | ListNode | MapNode


def write(root: Node) -> str:
    """The tree as block-style YAML that parses to the same tree; unquoted scalars stay unquoted."""
    events: list[yaml.Event] = [yaml.StreamStartEvent(), yaml.DocumentStartEvent(explicit=False)]
    events += [*_events(root), yaml.DocumentEndEvent(explicit=False), yaml.StreamEndEvent()]
    return str(yaml.emit(events, allow_unicode=True, width=sys.maxsize))


def _events(node: Node) -> Iterator[yaml.Event]:
    if isinstance(node, ScalarNode):
        # Single quotes would fold line breaks, and YAML 1.1 has several kinds.
        style = '"' if not node.text.isprintable() else None if node.is_plain else "'"
        yield yaml.ScalarEvent(None, None, (node.is_plain, True), node.text, style=style)
    elif isinstance(node, ListNode):
        yield yaml.SequenceStartEvent(None, None, True, flow_style=False)
        for item in node.items:
            yield from _events(item)
        yield yaml.SequenceEndEvent()
    else:
        yield yaml.MappingStartEvent(None, None, True, flow_style=False)
        for key, value in node.entries.values():
            yield from _events(key)
            yield from _events(value)
        yield yaml.MappingEndEvent()
