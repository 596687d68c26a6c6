"""Hypothesis strategies for arguments as users write them in YAML."""

import re
from typing import Any

from hypothesis import strategies as st


def _means_itself(text: str) -> bool:
    return "${" not in text and not re.fullmatch(r"\$\w*", text)


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20).filter(_means_itself)
"""Any text without a special meaning, which `${NAME}` and `$steps` have."""

printable_texts = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xD7FF), max_size=20).filter(
    lambda text: _means_itself(text) and not re.search("[\x7f-\x9f\u2028\u2029]", text)
)
"""Text that YAML takes inside JSON's quotes: no control characters, and none that YAML 1.1 counts as a line's end."""


def arguments(text: st.SearchStrategy[str]) -> st.SearchStrategy[dict[str, Any]]:
    """Arguments of a target: nested lists and mappings of single values."""
    numbers = st.integers() | st.floats(allow_nan=False)
    values = st.recursive(
        st.none() | st.booleans() | numbers | text,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
        max_leaves=12,
    )
    return st.dictionaries(text, values, max_size=4)
