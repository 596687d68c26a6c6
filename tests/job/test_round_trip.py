"""Arguments survive a round trip through YAML, and a job's own text gives the same job."""

import json
import math
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from distrib.job.values import read_values
from distrib.job.yaml.nodes import ListNode, MapNode, Node, ScalarNode, SourceLocation, write
from distrib.job.yaml.parser import parse
from tests.job.strategies import arguments, printable_texts, texts

PLACE = SourceLocation("job.yaml", 1)


def to_node(value: Any) -> Node:
    """The tree of `value`: text in quotes, all else plain."""
    if isinstance(value, dict):
        return MapNode(PLACE, {key: (ScalarNode(PLACE, key, is_plain=False), to_node(value[key])) for key in value})
    if isinstance(value, list):
        return ListNode(PLACE, [to_node(item) for item in value])
    if isinstance(value, float) and math.isinf(value):
        return ScalarNode(PLACE, ".inf" if value > 0 else "-.inf")
    return ScalarNode(PLACE, value, is_plain=False) if isinstance(value, str) else ScalarNode(PLACE, json.dumps(value))


def read(text: str) -> Any:
    root = parse(text, "job.yaml")
    assert root is not None
    values = read_values(root)
    assert not values.problems
    return values.data


def same(first: Any, second: Any) -> bool:
    """Equal, and of equal types: 1, 1.0 and true are three values."""
    return first == second and repr(first) == repr(second)


@given(arguments(texts))
def test_written_arguments_read_the_same(args: dict[str, Any]) -> None:
    assert same(read(write(to_node(args))), args)


@given(arguments(printable_texts))
def test_json_reads_the_same(args: dict[str, Any]) -> None:
    text = json.dumps(args, ensure_ascii=False)
    if "Infinity" not in text:  # which is not in JSON, though Python writes it
        assert same(read(text), args)


PLAIN_OR_QUOTED = st.builds(lambda text, quoted: (text, quoted), texts, st.booleans())


@given(st.lists(PLAIN_OR_QUOTED, max_size=5))
def test_writing_again_changes_nothing(scalars: list[tuple[str, bool]]) -> None:
    once = write(ListNode(PLACE, [ScalarNode(PLACE, text, is_plain=not quoted) for text, quoted in scalars]))
    root = parse(once, "job.yaml")
    assert root is not None
    assert write(root) == once
