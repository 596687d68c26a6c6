"""Which fields of a spec make it another job, so that it cannot resume a run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from distrib.job.spec.section import Resume, Section


def differing_fields(before: Section, now: Section) -> Iterator[tuple[str, Any, Any]]:
    """The fields that must be equal but differ: dotted name, value before, value now.

    Args:
        before: The spec of the run.
        now: The spec that is to resume it.
    """
    first, second = dict(_compared(before, "")), dict(_compared(now, ""))
    for name in sorted(first.keys() | second.keys()):
        if first.get(name) != second.get(name):
            yield name, first.get(name), second.get(name)


def resume_rule(section: type[Section], name: str) -> Resume:
    """The rule that a field of the spec is marked with.

    Raises:
        TypeError: It has no mark, or several; every field must be marked in the spec.
    """
    rules = [item for item in section.model_fields[name].metadata if isinstance(item, Resume)]
    if len(rules) != 1:
        raise TypeError(f"{section.__name__}.{name} needs one mark of Resume")
    return rules[0]


def _compared(section: Section, prefix: str) -> Iterator[tuple[str, Any]]:
    for name in type(section).model_fields:
        rule, value = resume_rule(type(section), name), getattr(section, name)
        if rule is Resume.BY_FIELD and value is not None:
            yield from _compared(value, f"{prefix}{name}.")
        elif rule is not Resume.MAY_DIFFER:
            yield f"{prefix}{name}", value.model_dump() if isinstance(value, Section) else value
