"""What all sections of a job spec have in common."""

from __future__ import annotations

from enum import Enum
from typing import Any

from pydantic import BaseModel, ConfigDict


class Resume(Enum):
    """What a field means for resuming a run with a job; each field of a job is marked with one."""

    MUST_MATCH = "must match"
    """Another value makes it another job, which is refused."""
    MAY_DIFFER = "may differ"
    """The new value is used from then on."""
    BY_FIELD = "by field"
    """The fields of this section are marked themselves."""


class Section(BaseModel):
    """Base of every section of the spec: unknown keys are errors and values are not converted."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)


def exactly_one(first: str, second: str) -> dict[str, Any]:
    """The JSON Schema rule that exactly one of two optional fields is present and not null."""

    def present(name: str) -> dict[str, Any]:
        return {"required": [name], "properties": {name: {"not": {"type": "null"}}}}

    return {"oneOf": [present(first), present(second)]}
