"""`distrib schema`: the job spec's JSON Schema, for editors and programs that write specs."""

from __future__ import annotations

import json
from typing import Any

from distrib.job.script import ScriptSpec
from distrib.job.spec.job import JobSpec

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema() -> None:
    """Print the JSON Schema of the job spec: of a training, or of a script to run."""
    print(json.dumps(make_schema(), indent=2, ensure_ascii=False))


def make_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of the job spec, including bare-string targets; with `script`, of a script's."""
    training, script = JobSpec.model_json_schema(), ScriptSpec.model_json_schema()
    definitions = training.pop("$defs") | script.pop("$defs") | {"TrainingJob": training, "ScriptJob": script}
    return {
        "$schema": DIALECT,
        "title": "distrib job spec",
        "if": {"required": ["script"]},
        "then": {"$ref": "#/$defs/ScriptJob"},
        "else": {"$ref": "#/$defs/TrainingJob"},
        "$defs": definitions,
    }
