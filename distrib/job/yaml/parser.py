"""Parses YAML text into a job's tree and rejects YAML features that a job spec does not use."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from typing import Any

import yaml

from distrib.job.yaml.nodes import ListNode, MapNode, Node, ScalarNode, SourceLocation
from distrib.job.yaml.scalars import Scalar, read_plain

MAX_DEPTH = 50

_LINE_END = re.compile(r"\r\n?|\n")


def parse(text: str, source: str, *, counts_lines: bool = True) -> Node | None:
    """Reads one YAML document; None for an empty one.

    Args:
        text: The document.
        source: The name of its source in errors.
        counts_lines: Whether locations have lines; text from the command line has none.

    Raises:
        JobError: The text is not YAML, or uses what a job spec does not allow: several documents, tags, anchors,
            aliases, merge keys, duplicate keys, keys that are not scalars, more than 50 levels.
    """
    document = _Document(text, source, counts_lines)
    # The Python parser, not libyaml: its errors give the exact character, and a spec is short enough.
    events = yaml.parse(text, Loader=yaml.SafeLoader)
    try:
        return _compose_document(events, document)
    except yaml.reader.ReaderError as error:
        message = f"has a character that YAML does not allow (U+{int(error.character):04X}); remove it"
        raise document.location(error.position).error(message) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        index = mark.index if mark else 0
        raise document.location(index).error(_explain(error, index, document)) from error


class _Document:
    """The text with line numbers as an editor counts them; YAML 1.1 recognizes further line breaks."""

    def __init__(self, text: str, source: str, counts_lines: bool) -> None:
        self._text = text
        self._source = source
        self._counts_lines = counts_lines
        self._starts = [0, *(end.end() for end in _LINE_END.finditer(text))]

    def line_number(self, index: int) -> int:
        """The line, from 1, of the character at `index`."""
        return bisect_right(self._starts, index)

    def location(self, index: int) -> SourceLocation:
        """The location of the character at `index`."""
        return SourceLocation(self._source, self.line_number(index) if self._counts_lines else None)

    def around(self, index: int) -> tuple[str, str]:
        """The text of the line before and after `index`."""
        start = self._starts[self.line_number(index) - 1]
        return self._text[start:index], _LINE_END.split(self._text[index:], maxsplit=1)[0]


def _explain(error: yaml.MarkedYAMLError, index: int, document: _Document) -> str:
    """Explains a syntax error without YAML grammar terms."""
    before, after = document.around(index)
    if before.endswith("$") and after.startswith("{"):
        return 'a ${NAME} inside { } or [ ] must be in quotes: write "${NAME}"'
    line = before + after
    if "\t" in line[: len(line) - len(line.lstrip())] or after.startswith("\t"):
        return f"line {document.line_number(index)} has a tab; YAML needs spaces"
    context = f" {error.context}" if error.context else ""
    start = error.context_mark
    if start is not None and document.line_number(start.index) != document.line_number(index):
        context += f" that starts on line {document.line_number(start.index)}"
    return f"is not YAML:{context}{',' if context else ''} {error.problem}"


def _compose_document(events: Iterator[Any], document: _Document) -> Node | None:
    root: Node | None = None
    num_documents = 0
    for event in events:
        start = event.start_mark
        if isinstance(event, yaml.DocumentStartEvent):
            num_documents += 1
            if num_documents > 1:
                location = document.location(start.index)
                raise location.error("a second document starts here ('---'); a file contains one job")
        elif isinstance(event, yaml.NodeEvent):
            root = _compose(event, events, document, 0)
    return root


def _compose(event: Any, events: Iterator[Any], document: _Document, depth: int) -> Node:
    """The node that `event` starts; `events` are those after it."""
    location = document.location(event.start_mark.index)
    _refuse_extras(event, location)
    if depth > MAX_DEPTH:
        raise location.error(f"is nested more than {MAX_DEPTH} levels deep")
    if isinstance(event, yaml.ScalarEvent):
        return ScalarNode(location, event.value, is_plain=event.style is None)
    if isinstance(event, yaml.SequenceStartEvent):
        items = []
        while not isinstance(following := next(events), yaml.SequenceEndEvent):
            items.append(_compose(following, events, document, depth + 1))
        return ListNode(location, items)
    mapping = MapNode(location)
    while not isinstance(following := next(events), yaml.MappingEndEvent):
        key = _compose(following, events, document, depth + 1)
        value = _compose(next(events), events, document, depth + 1)
        _add_entry(mapping, key, value)
    return mapping


def _add_entry(mapping: MapNode, key: Node, value: Node) -> None:
    if not isinstance(key, ScalarNode):
        raise key.location.error("a key must be a single value, not a list or a mapping")
    name = _read_key(key)
    if name in mapping.entries:
        first, second = mapping.entries[name][0].location.line, key.location.line
        where = "" if first is None else f", on lines {first} and {second}"
        raise key.location.error(f"the key '{key.text}' appears twice{where}; remove one")
    mapping.entries[name] = (key, value)


def _read_key(key: ScalarNode) -> Scalar:
    if not key.is_plain:
        return key.text
    if key.text == "<<":
        raise key.location.error("merge keys ('<<') are not supported; write the keys out")
    try:
        return read_plain(key.text)
    except ValueError as error:
        raise key.location.error(str(error)) from error


def _refuse_extras(event: Any, location: SourceLocation) -> None:
    if isinstance(event, yaml.AliasEvent):
        raise location.error(f"aliases ('*{event.anchor}') are not supported; write the value out, or quote the text")
    if event.anchor is not None:
        raise location.error(f"anchors ('&{event.anchor}') are not supported; remove it, or quote the text")
    if event.tag is not None:
        tag = str(event.tag).replace("tag:yaml.org,2002:", "!!")
        raise location.error(f"YAML tags ('{tag}') are not supported; remove it, or quote the text")
