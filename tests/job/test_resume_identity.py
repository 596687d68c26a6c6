"""Which fields make another job."""

import typing

import pytest

from distrib.job.resume_identity import differing_fields, resume_rule
from distrib.job.spec.job import JobSpec
from distrib.job.spec.section import Resume, Section

SPEC = {
    "name": "digits",
    "model": {"target": "jobs.digits:Mlp", "args": {"hidden": 8}},
    "data": {"train": "jobs.digits:Digits", "batch_size": 8},
    "loss": "torch.nn:CrossEntropyLoss",
    "optimizer": "torch.optim:AdamW",
    "train": {"epochs": 1},
}


def spec(**changes):
    values = {name: dict(value) if isinstance(value, dict) else value for name, value in SPEC.items()}
    for path, value in changes.items():
        section, _, field = path.partition("__")
        if field:
            values.setdefault(section, {})[field] = value
        else:
            values[section] = value
    return JobSpec.model_validate(values)


def sections_of(annotation):
    """The sections in a field's type."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for part in typing.get_args(annotation):
        yield from sections_of(part)


def compared_fields(section):
    """Every field that is looked at, in sections that are compared by field."""
    for name, field in section.model_fields.items():
        rule = resume_rule(section, name)  # which raises TypeError where a field has no mark
        yield f"{section.__name__}.{name}"
        if rule is Resume.BY_FIELD:
            for inner in sections_of(field.annotation):
                yield from compared_fields(inner)


def test_every_field_is_marked():
    fields = set(compared_fields(JobSpec))
    assert {"JobSpec.model", "Model.weights", "Data.loader_workers", "Train.seed", "Ddp.compress"} <= fields


def test_a_field_without_a_mark_is_found():
    class Forgotten(JobSpec):
        forgotten: int = 0

    with pytest.raises(TypeError, match=r"Forgotten\.forgotten needs one mark"):
        set(compared_fields(Forgotten))


@pytest.mark.parametrize(
    ("changes", "differing"),
    [
        ({}, []),
        ({"name": "other", "data__loader_workers": 2, "train__log_every": 3, "storage": "elsewhere"}, []),
        ({"resources": {"workers": 3}, "checkpoint": {"keep": 1}, "failures": {"grace": 1.0}}, []),
        ({"train__seed": 4}, [("train.seed", 0, 4)]),
        (
            {"data__batch_size": 16, "ddp": {"compress": "fp16"}},
            [("data.batch_size", 8, 16), ("ddp.compress", "none", "fp16")],
        ),
        (
            {"model": {"target": "jobs.digits:Mlp", "args": {"hidden": 16}}},
            [("model.args", {"hidden": 8}, {"hidden": 16})],
        ),
        ({"model__weights": "x.safetensors"}, [("model.weights", None, "x.safetensors")]),
    ],
)
def test_what_differs(changes, differing):
    assert list(differing_fields(spec(), spec(**changes))) == differing


def test_a_target_without_args_equals_the_full_form():
    full = spec(optimizer={"target": "torch.optim:AdamW", "args": {}})
    assert list(differing_fields(spec(), full)) == []
    (found,) = differing_fields(spec(), spec(optimizer={"target": "torch.optim:SGD", "args": {"lr": 0.1}}))
    assert found[0] == "optimizer"
