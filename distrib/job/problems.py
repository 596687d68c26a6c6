"""Turns pydantic's validation errors into messages that name the field and the fix."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from distrib.job.fields import Shape, absent_from_script, all_fields, nearest, pattern_at, shape_at
from distrib.job.rules import CONTRADICTION, Problem
from distrib.job.spec.job import JobSpec
from distrib.job.spec.patterns import PATTERNS_IN_WORDS, SAVE_INTERVAL_PATTERN, STEP_INTERVAL_PATTERN, TARGET_PATTERN
from distrib.job.spec.resources import COUNT_TAG, RANGE_TAG
from distrib.job.spec.section import Section
from distrib.job.spec.targets import Target
from distrib.job.spec.usual_targets import USUAL_TARGETS
from distrib.job.yaml.scalars import read_plain

_NOT_IN_A_PATH = (COUNT_TAG, RANGE_TAG, "[key]")

_SYNONYMS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("gpu", "gpus", "nvidia"), "cuda"),
    **dict.fromkeys(("float32", "32", "32-true", "single", "full"), "fp32"),
    **dict.fromkeys(("float16", "16", "16-mixed", "half"), "fp16"),
    **dict.fromkeys(("bfloat16", "bf16-mixed"), "bf16"),
    **dict.fromkeys(("minimize", "lowest"), "min"),
    **dict.fromkeys(("maximize", "highest"), "max"),
}
"""What other tools call a value."""

_EXPECTED: Final[Mapping[str, Callable[[Mapping[str, Any]], str]]] = {
    "int_type": lambda _: "a whole number",
    "float_type": lambda _: "a number",
    "bool_type": lambda _: "true or false",
    "string_type": lambda _: "text",
    "dict_type": lambda _: "a mapping",
    "model_type": lambda _: "a mapping",
    "greater_than_equal": lambda context: f"a whole number of at least {context['ge']}",
    "greater_than": lambda context: f"a number greater than {context['gt']:g}",
    "less_than_equal": lambda context: f"at most {context['le']}",
    "finite_number": lambda _: "a finite number",
    "literal_error": lambda context: f"one of {context['expected']}",
    "string_pattern_mismatch": lambda context: PATTERNS_IN_WORDS[context["pattern"]],
}


def problems_of(error: ValidationError, model: type[Section] = JobSpec) -> Iterator[Problem]:
    """Yields every problem in a spec of the kind `model` as the dotted path of its field and a message."""
    spec = Shape(section=model)
    for details in error.errors(include_url=False):
        path = [str(part) for part in details["loc"] if part not in _NOT_IN_A_PATH]
        if details["type"] == CONTRADICTION:
            for field, message in details["ctx"]["problems"]:
                yield ".".join([*path, *filter(None, [field])]), message
        else:
            yield ".".join(path), _message(details, path, spec)


def _message(details: ErrorDetails, path: Sequence[str], spec: Shape) -> str:
    kind = details["type"]
    context = details.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown_key(path, spec)
    if kind == "missing":
        return f"required{_description(path, spec)}"
    if kind == "invalid_key" or (kind == "string_type" and "[key]" in details["loc"]):
        return _key_of_wrong_type(kind, details["input"])
    if kind == "value_error":
        return str(context["error"])
    if kind not in _EXPECTED:
        return details["msg"]
    value = details["input"]
    pattern = pattern_at(path, spec) if kind == "string_type" and isinstance(value, int | float) else None
    if pattern is not None and not re.search(pattern, str(value)):  # quotes alone would not do
        kind, context = "string_pattern_mismatch", {"pattern": pattern}
    expected = _EXPECTED[kind](context)
    shape = shape_at(path, spec)
    if COUNT_TAG in details["loc"]:
        expected = "a whole number of at least 1, or {min: …, max: …}"
    elif kind == "model_type" and shape and shape.section and issubclass(shape.section, Target):
        expected = "module:attribute, or {target: module:attribute, args: {…}}"
    return f"expected {expected}, got {_show(value)}{_hint(kind, value, context)}"


def _key_of_wrong_type(kind: str, key: object) -> str:
    """Explains a key that is no text; a number is often the end of a decimal comma, which separates entries here."""
    if kind == "invalid_key":
        return "keys must be text here; put it in quotes"
    advice = "; decimals have a point, as in 0.1" if type(key) is int else ""
    return f"the key {_show(key)} is not text; put it in quotes if it is a name{advice}"


def _unknown_key(path: Sequence[str], spec: Shape) -> str:
    *parent, key = path
    shape = shape_at(parent, spec)
    section: type[Section] | None = shape.section if shape else None
    names = list(section.model_fields) if section else []
    elsewhere = [field for field in all_fields(spec) if field.rpartition(".")[2] == key]
    if (reason := absent_from_script(key, section)) is not None:
        advice = reason
    elif match := nearest(key, names):
        advice = f"did you mean '{match}'?"
    elif section and issubclass(section, Target):
        advice = f"arguments go under args: {{{key}: …}}"
    elif ":" in key:
        advice = "YAML needs a space after the colon"
    elif elsewhere:
        advice = f"did you mean '{elsewhere[0]}'?"
    else:
        advice = f"the keys here are: {', '.join(names)}"
    return f"unknown key '{key}'; {advice}"


def _description(path: Sequence[str], spec: Shape) -> str:
    parent = shape_at(path[:-1], spec)
    field = parent.section.model_fields.get(path[-1]) if parent and parent.section else None
    return f": {field.description}" if field and field.description else ""


def _show(value: object) -> str:
    """`value` as its author wrote it."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _hint(kind: str, value: object, context: Mapping[str, Any]) -> str:
    """The most likely fix for this value, or an empty string."""
    advice = ""
    if kind == "int_type" and isinstance(value, float) and value.is_integer():
        advice = f"write {value:.0f}"
    elif kind == "string_type" and isinstance(value, int | float):
        advice = "put it in quotes"
    elif isinstance(value, str) or kind == "string_pattern_mismatch":
        advice = _hint_for_text(kind, str(value), context)
    return f"; {advice}" if advice else ""


def _hint_for_text(kind: str, value: str, context: Mapping[str, Any]) -> str:
    match: str | None = None
    if kind in ("int_type", "float_type") and isinstance(read_plain(value), int | float):
        return f"without quotes {value} is a number"
    if kind == "bool_type":
        return "YAML 1.2 has only these two"
    if kind == "literal_error":
        allowed = re.findall("'(.*?)'", context["expected"])
        synonym = _SYNONYMS.get(value.lower())
        match = synonym if synonym in allowed else nearest(value, allowed)
    elif kind == "string_pattern_mismatch" and context["pattern"] == TARGET_PATTERN:
        match = _guess_target(value)
    elif kind == "string_pattern_mismatch" and context["pattern"] in (STEP_INTERVAL_PATTERN, SAVE_INTERVAL_PATTERN):
        match = _guess_interval(value)
    return f"did you mean '{match}'?" if match else ""


def _guess_target(value: str) -> str | None:
    """Turns `jobs/digits.py:Mlp` or `jobs.digits.Mlp` into `jobs.digits:Mlp`, `AdamW` into `torch.optim:AdamW`."""
    if value.isidentifier():
        name = nearest(value, USUAL_TARGETS)
        return None if name is None else USUAL_TARGETS[name]
    is_file = "/" in value or value.endswith(".py")
    guess = value.replace(".py:", ":").removesuffix(".py").replace("/", ".").lstrip(".")
    if ":" not in guess:
        guess = f"{guess}:NAME" if is_file else ":".join(guess.rsplit(".", 1))
    return guess if re.fullmatch(TARGET_PATTERN, guess) else None


def _guess_interval(value: str) -> str | None:
    """Turns `10steps`, `every 10 steps`, `epoch` or `10` into an interval."""
    if value.isdecimal():
        value = f"{value} steps" if int(value) else "never"
    if value == "never":
        return value
    number, unit = re.search("[1-9][0-9]*", value), re.search("step|epoch", value)
    count = number[0] if number else "1"
    return f"{count} {unit[0]}{'' if count == '1' else 's'}" if unit else None
