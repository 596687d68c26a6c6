"""The JSON Schema accepts every spec that the reader accepts and rejects malformed ones."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from distrib.cli.schema import make_schema, schema
from distrib.job.reader import Job
from distrib.job.values import read_values
from distrib.job.yaml.parser import parse

REPOSITORY = Path(__file__).parents[2]


def read(text: str) -> Any:
    root = parse(text, "job.yaml")
    assert root is not None
    return read_values(root).data


def is_valid(text: str) -> bool:
    return jsonschema.Draft202012Validator(make_schema()).is_valid(read(text))


def test_it_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(make_schema())
    assert make_schema()["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert "$id" not in make_schema()


def test_every_field_is_described() -> None:
    definitions = make_schema()["$defs"]

    def is_described(field: dict[str, Any]) -> bool:
        section = definitions.get(field.get("$ref", "").removeprefix("#/$defs/"), {})
        return bool(field.get("description") or section.get("description"))

    fields = [field for section in definitions.values() for field in section["properties"].values()]
    assert len(fields) > 40
    assert all(map(is_described, fields))


def test_the_verb_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    schema()
    assert json.loads(capsys.readouterr().out) == make_schema()


@pytest.mark.timeout(60)
def test_it_needs_neither_torch_nor_ray() -> None:
    program = "import sys, distrib.cli.schema as s; s.schema(); assert not {'torch', 'ray'} & set(sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True, timeout=50, capture_output=True)


@pytest.mark.parametrize(
    ("addition", "is_right"),
    [
        ("script: {file: train.py, args: [--lr, '0.1']}", True),
        ("script: {module: package.train}", True),
        ("script: {file: train.py, module: train}", False),
        ("script: {file: train.py}\ntrain: {steps: 3}", False),
        ("script: {args: [a]}", False),
        ("script: train.py", False),
    ],
)
def test_scripts(addition: str, is_right: bool) -> None:
    assert is_valid(f"name: example\n{addition}\nresources: {{workers: 2}}") == is_right


@pytest.mark.parametrize("path", sorted((REPOSITORY / "jobs").glob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_job_is_valid(path: Path) -> None:
    Job.load(path)
    assert is_valid(path.read_text())


@pytest.mark.parametrize(
    "addition",
    [
        "schedule: a:b",
        "schedule: {target: a:b, args: {T_max: $steps}, every: epoch}",
        "schedule: null",
        "resources: {workers: {min: 1, max: 2}}",
        "step: null",
        "storage: /data/runs",
        "ddp: {bucket_mb: 1}",
    ],
)
def test_what_the_reader_takes_is_valid(load: Callable[..., Job], text: str, addition: str) -> None:
    changed = text.replace("resources:\n  workers: 2\n", "") + addition
    load(changed)
    assert is_valid(changed)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("name: digits\n", ""),
        ("name: digits", "name: a/b"),
        ("name: digits", "name: 3"),
        ("model: {target", "model: {goal"),
        ("{hidden: 256}", "[256]"),
        ("torch.nn:CrossEntropyLoss", "torch.nn.CrossEntropyLoss"),
        ("loss: torch.nn:CrossEntropyLoss\n", ""),
        ("loss:", "step: a:b\nloss:"),
        ("epochs: 10", "epoch: 10"),
        ("epochs: 10", "epochs: 10\n  steps: 5"),
        ("epochs: 10", "epochs: 10\n  eval_every: 5 seconds"),
        ("epochs: 10", "epochs: 10\n  precision: fp8"),
        ("epochs: 10", "epochs: 10\n  deterministic: yes"),
        ("epochs: 10", "epochs: null"),
        ("batch_size: 64", "batch_size: 0"),
        ("batch_size: 64", "batch_size: 1.5"),
        ("workers: 2", "workers: {min: 1}"),
        ("workers: 2", "workers: two"),
        ("  accuracy:", "  top-1:"),
        ("  accuracy:", "  loss:"),
        ("name: digits", "name: digits\nunknown: 1"),
        ("name: digits", "name: digits\nschedule: {target: a:b, every: sometimes}"),
    ],
)
def test_what_is_wrong_in_form_is_not(text: str, old: str, new: str) -> None:
    assert is_valid(text)
    assert not is_valid(text.replace(old, new, 1))
