"""`distrib schema`: the job spec's JSON Schema, for editors and programs that write specs."""

from __future__ import annotations

import json
from typing import Any

from distrib.job.spec import JobSpec

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema() -> None:
    """Print the JSON Schema of the job spec."""
    print(json.dumps(make_schema(), indent=2, ensure_ascii=False))


def make_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of the job spec, including bare-string targets."""
    return {"$schema": DIALECT, **JobSpec.model_json_schema(), "title": "distrib job spec"}
