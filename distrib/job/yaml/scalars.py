"""Values of YAML scalars: the YAML 1.2 core schema and environment variables."""

from __future__ import annotations

import os
import re
from typing import Final

Scalar = str | int | float | bool | None

_CONSTANTS: Final[dict[str, Scalar]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_WHOLE_NUMBERS = (
    (re.compile(r"[-+]?[0-9]+"), 10),
    (re.compile(r"0o[0-7]+"), 8),
    (re.compile(r"0x[0-9a-fA-F]+"), 16),
)
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INFINITY = re.compile(r"[-+]?\.(inf|Inf|INF)")
_NOT_A_NUMBER = re.compile(r"\.(nan|NaN|NAN)")

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_OPENING = re.compile(r"\$\{")


def read_plain(text: str) -> Scalar:
    """The value of an unquoted scalar by the YAML 1.2 core schema (section 10.3.2).

    Raises:
        ValueError: It is an integer with more digits than Python parses (4300).
    """
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    for pattern, base in _WHOLE_NUMBERS:
        if pattern.fullmatch(text):
            return _read_whole_number(text, base)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _INFINITY.fullmatch(text) or _NOT_A_NUMBER.fullmatch(text):
        return float(text.replace(".", ""))
    return text


def _read_whole_number(text: str, base: int) -> int:
    try:
        return int(text, base)
    except ValueError:
        raise ValueError(f"a number of {len(text)} digits is too long; put it in quotes if it is text") from None


def read_scalar(text: str, *, is_plain: bool) -> Scalar:
    """The value of a scalar with environment variables expanded.

    An unquoted scalar that consists of `${NAME}` alone is parsed after expansion, so `${SEED}` can be an integer. Any
    other scalar that contains `${NAME}`, and any quoted one, stays text. Expansion is not recursive, and an empty
    variable is empty text, not null.

    Raises:
        ValueError: A variable is not defined, a `${` is not followed by a name, or a number is too long.
    """
    if "${" not in text:
        return read_plain(text) if is_plain else text
    expanded = _expand(text)
    return read_plain(expanded) if is_plain and expanded and _VARIABLE.fullmatch(text) else expanded


def _expand(text: str) -> str:
    for opening in _OPENING.finditer(text):
        variable = _VARIABLE.match(text, opening.start())
        if variable is None:
            raise ValueError(
                "'${' must be followed by the name of an environment variable and '}', as in ${HOME}; "
                "there is no other templating"
            )
        if variable[1] not in os.environ:
            raise ValueError(f"the environment variable {variable[1]} is not defined; export it, or write its value")
    return _VARIABLE.sub(lambda match: os.environ[match[1]], text)
