"""From YAML text to the tree of a job, refusing in plain words what a job spec does without."""

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
        source: What errors name as its place.
        counts_lines: Whether places have lines; text from the command line has none.

    Raises:
        JobError: for what is not YAML, and for what a job spec does without: several documents, tags, anchors,
            aliases, merge keys, duplicate keys, keys that are no single values, more than 50 levels.
    """
    document = _Document(text, source, counts_lines)
    # The parser in Python, not libyaml's: its messages name the character at fault, and a spec is one page.
    events = yaml.parse(text, Loader=yaml.SafeLoader)
    try:
        return _compose_document(events, document)
    except yaml.reader.ReaderError as error:
        message = f"has a character that YAML does not allow (U+{int(error.character):04X}); remove it"
        raise document.place(error.position).error(message) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        index = mark.index if mark else 0
        raise document.place(index).error(_explain(error, index, document)) from error


class _Document:
    """The text, and what its lines are: those of an editor, where YAML 1.1 sees a few more."""

    def __init__(self, text: str, source: str, counts_lines: bool) -> None:
        self._text = text
        self._source = source
        self._counts_lines = counts_lines
        self._starts = [0, *(end.end() for end in _LINE_END.finditer(text))]

    def line_number(self, index: int) -> int:
        """The line, from 1, of the character at `index`."""
        return bisect_right(self._starts, index)

    def place(self, index: int) -> SourceLocation:
        """The place of the character at `index`."""
        return SourceLocation(self._source, self.line_number(index) if self._counts_lines else None)

    def around(self, index: int) -> tuple[str, str]:
        """The text before `index` on its line, and from there to the line's end."""
        start = self._starts[self.line_number(index) - 1]
        return self._text[start:index], _LINE_END.split(self._text[index:], maxsplit=1)[0]


def _explain(error: yaml.MarkedYAMLError, index: int, document: _Document) -> str:
    """What is wrong, for someone who does not know YAML's grammar by heart."""
    before, after = document.around(index)
    if before.endswith("$") and after.startswith("{"):
        return 'a ${NAME} inside { } or [ ] must be in quotes: write "${NAME}"'
    line = before + after
    if "\t" in line[: len(line) - len(line.lstrip())] or after.startswith("\t"):
        return f"line {document.line_number(index)} has a tab; YAML wants spaces"
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
                place = document.place(start.index)
                raise place.error("a second document starts here ('---'); a file holds one job")
        elif isinstance(event, yaml.NodeEvent):
            root = _compose(event, events, document, 0)
    return root


def _compose(event: Any, events: Iterator[Any], document: _Document, depth: int) -> Node:
    """The node that `event` starts; `events` are those after it."""
    place = document.place(event.start_mark.index)
    _refuse_extras(event, place)
    if depth > MAX_DEPTH:
        raise place.error(f"is nested more than {MAX_DEPTH} levels deep")
    if isinstance(event, yaml.ScalarEvent):
        return ScalarNode(place, event.value, is_plain=event.style is None)
    if isinstance(event, yaml.SequenceStartEvent):
        items = []
        while not isinstance(following := next(events), yaml.SequenceEndEvent):
            items.append(_compose(following, events, document, depth + 1))
        return ListNode(place, items)
    mapping = MapNode(place)
    while not isinstance(following := next(events), yaml.MappingEndEvent):
        key = _compose(following, events, document, depth + 1)
        value = _compose(next(events), events, document, depth + 1)
        _add_entry(mapping, key, value)
    return mapping


def _add_entry(mapping: MapNode, key: Node, value: Node) -> None:
    if not isinstance(key, ScalarNode):
        raise key.place.error("a key must be a single value, not a list or a mapping")
    name = _read_key(key)
    if name in mapping.entries:
        first, second = mapping.entries[name][0].place.line, key.place.line
        where = "" if first is None else f", on lines {first} and {second}"
        raise key.place.error(f"the key '{key.text}' is there twice{where}; remove one")
    mapping.entries[name] = (key, value)


def _read_key(key: ScalarNode) -> Scalar:
    if not key.is_plain:
        return key.text
    if key.text == "<<":
        raise key.place.error("a job spec has no merge keys ('<<'); write the keys out")
    try:
        return read_plain(key.text)
    except ValueError as error:
        raise key.place.error(str(error)) from error


def _refuse_extras(event: Any, place: SourceLocation) -> None:
    if isinstance(event, yaml.AliasEvent):
        raise place.error(f"a job spec has no aliases ('*{event.anchor}'); write the value out, or quote the text")
    if event.anchor is not None:
        raise place.error(f"a job spec has no anchors ('&{event.anchor}'); remove it, or quote the text")
    if event.tag is not None:
        tag = str(event.tag).replace("tag:yaml.org,2002:", "!!")
        raise place.error(f"a job spec has no YAML tags ('{tag}'); remove it, or quote the text")
