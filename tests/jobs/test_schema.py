"""The schema file for editors, and the jobs themselves."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from distrib.cli.schema import make_schema

JOBS = Path(__file__).parents[2] / "jobs"


def test_schema_file_is_current():
    schema = json.loads((JOBS / "job.schema.json").read_text(encoding="utf-8"))
    assert schema == make_schema(), "run: distrib schema > jobs/job.schema.json"


@pytest.mark.parametrize("path", sorted(JOBS.glob("*.yaml")), ids=lambda path: path.name)
def test_job_names_its_schema_and_fits_it(path):
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# yaml-language-server: $schema=job.schema.json\n")
    jsonschema.validate(yaml.safe_load(text), make_schema())
