"""Overrides: what `--set a.b=value` changes and rejects."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distrib.job.reader import Job
from tests.job.strategies import printable_texts

Load = Callable[..., Job]
Refusal = Callable[..., list[str]]

reads_files = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
"""The fixtures of these tests keep nothing from one example to the next."""

FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "train.seed": st.integers(0, 2**63 - 1),
    "train.log_every": st.integers(1, 10**6),
    "train.clip_norm": st.floats(1e-3, 1e3),
    "train.precision": st.sampled_from(["fp32", "bf16", "fp16"]),
    "train.eval_every": st.sampled_from(["never", "3 steps", "2 epochs", "1 epoch"]),
    "train.deterministic": st.booleans(),
    "data.eval_batch_size": st.integers(1, 512),
    "data.loader_workers": st.integers(0, 8),
    "ddp.bucket_mb": st.floats(0.1, 100),
    "resources.workers": st.integers(1, 64) | st.integers(1, 9).map(lambda low: {"min": low, "max": 2 * low}),
    "resources.device": st.sampled_from(["auto", "cpu", "cuda"]),
    "model.args.hidden": st.integers() | st.lists(printable_texts) | st.dictionaries(printable_texts, st.none()),
    "model.args.new": printable_texts,
    "optimizer.args.lr": st.floats(1e-6, 1),
    "metrics.other.target": st.just("torchmetrics:MeanMetric"),
}  # fmt: skip
settings_drawn = st.sampled_from(sorted(FIELDS)).flatmap(lambda field: st.tuples(st.just(field), FIELDS[field]))


def override(field: str, value: Any) -> str:
    return f"{field}={json.dumps(value, ensure_ascii=False)}"


def value_at(job: Job, field: str) -> Any:
    value: Any = job.spec.model_dump()
    for key in field.split("."):
        value = value[key]
    return value


@reads_files
@given(settings_drawn)
def test_an_override_wins(load: Load, text: str, setting: tuple[str, Any]) -> None:
    job = load(text, override(*setting))
    assert value_at(job, setting[0]) == setting[1]
    assert setting[0] not in job.lines


@reads_files
@given(settings_drawn, st.data())
def test_the_last_override_wins(load: Load, text: str, setting: tuple[str, Any], data: st.DataObject) -> None:
    field, value = setting
    first = load(text, override(field, data.draw(FIELDS[field])))
    assert first.override([override(field, value)]).spec == load(text, override(field, value)).spec


@reads_files
@given(settings_drawn)
def test_setting_twice_is_setting_once(load: Load, text: str, setting: tuple[str, Any]) -> None:
    once = load(text, override(*setting))
    twice = once.override([override(*setting)])
    assert (twice.spec, twice.text) == (once.spec, once.text)


@reads_files
@given(settings_drawn)
def test_null_unsets(load: Load, text: str, setting: tuple[str, Any]) -> None:
    field = setting[0] if not setting[0].startswith("metrics.") else "metrics.other"
    job = load(text, override(*setting), f"{field}=null")
    assert job.spec == load(text, f"{field}=null").spec
    if field not in ("model.args.hidden", "resources.workers"):  # those that the file has
        assert job.spec == load(text).spec


@reads_files
@given(st.lists(settings_drawn, min_size=1, max_size=4))
def test_the_text_gives_the_same_job(load: Load, text: str, drawn: list[tuple[str, Any]]) -> None:
    job = load(text, *[override(*setting) for setting in drawn], "metrics.other=null")
    again = load(job.text)
    assert again.spec == job.spec
    assert again.text == job.text
    assert again.override(["train.seed=1", "train.seed=null"]).spec.train.seed == 0


def test_a_bare_target_is_normalised_first(load: Load, text: str) -> None:
    spec = load(text, "optimizer.args.lr=0.1", "loss.args.weight=[1, 2]", "data.eval.args.split=test").spec
    assert (spec.optimizer.target, spec.optimizer.args) == ("torch.optim:AdamW", {"lr": 0.1})
    assert spec.loss is not None
    assert spec.loss.args == {"weight": [1, 2]}
    assert spec.data.eval is not None
    assert spec.data.eval.args == {"split": "test"}


def test_values_are_yaml(load: Load, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIDDEN", "17")
    args = load(
        text,
        "model.args.a=1e-3", "model.args.b=on", "model.args.c='1'", "model.args.d={x: [1, ~]}", "model.args.e=a=b",
        "model.args.hidden=${HIDDEN}", "model.args.f=''", "model.args.g.h.i=1",
    )  # fmt: skip
    assert args.spec.model.args == {
        "a": 0.001, "b": "on", "c": "1", "d": {"x": [1, None]}, "e": "a=b", "hidden": 17, "f": "", "g": {"h": {"i": 1}},
    }  # fmt: skip


def test_new_fields_where_the_spec_knows_them(load: Load, text: str) -> None:
    job = load(
        text,
        "train.clip_norm=1.0", "metrics.loss_2={target: a:b}", "metrics.f1.target=a:c",
        "metrics.f1.args.k=3", "schedule.target=a:b", "schedule.args.T_max=$steps",
    )  # fmt: skip
    assert job.spec.metrics["f1"].args == {"k": 3}
    assert job.spec.schedule is not None
    assert job.spec.schedule.args == {"T_max": "$steps"}


def test_unsetting_what_is_not_there_changes_nothing(load: Load, text: str) -> None:
    plain = load(text)
    nothing = ["train.seed=null", "schedule=~", "schedule.args.x=null", "model.args.a.b=null", "metrics.f1=null"]
    assert load(text, *nothing).spec == plain.spec


def test_loss_gives_way_to_step(load: Load, text: str) -> None:
    assert load(text, "loss=null", "step=jobs.digits:step").spec.loss is None


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.epoch=3", "unknown field 'train.epoch'; did you mean 'train.epochs'?"),
        ("epochs=3", "unknown field 'epochs'; did you mean 'train.epochs'?"),
        ("workers=3", "unknown field 'workers'; did you mean 'resources.workers'?"),
        ("hidden=3", "unknown field 'hidden'; did you mean 'model.args.hidden'?"),
        ("model.hidden=3", "unknown field 'model.hidden'; did you mean 'model.args.hidden'?"),
        ("optimizer.lr=3", "unknown field 'optimizer.lr'; did you mean 'optimizer.args.lr'?"),
        ("optimiser.args.lr=3", "unknown field 'optimiser.args.lr'; did you mean 'optimizer.args"),
        ("schedule.evry=step", "unknown field 'schedule.evry'; did you mean 'schedule.every'?"),
        ("train.seed.x=3", "unknown field 'train.seed.x'; did you mean 'train.seed'?"),
        ("foo.bar=3", "unknown field 'foo.bar'; the spec has: name, model,"),
        ("optimzer=null", "unknown field 'optimzer'; did you mean 'optimizer'?"),
        ("train.epochs", "write it as FIELD=VALUE, such as train.epochs=3"),
        ("=3", "write it as FIELD=VALUE"),
        ("train..epochs=3", "write it as FIELD=VALUE"),
        ("train.epochs=", "has no value; write null to unset the field"),
        ("train.epochs=# 3", "the value must be one YAML value"),
        ("train.epochs=- 3", "the value must be one YAML value"),
        ("train.epochs=a: 3", "the value must be one YAML value"),
        ("train.epochs=[3", "is not YAML"),
        ("model.args={a: ${HOME}}", "must be in quotes"),
        ("model.args={a: 1, a: 2}", "the key 'a' appears twice; remove one"),
        ("model.args=!!python/name:os.system x", "YAML tags"),
        ("model.args.x=${NO_SUCH}", "model.args.x: the environment variable NO_SUCH is not defined"),
        ("model.args.hidden.x=3", "model.args.hidden is not a mapping in this job; set it whole"),
        ("resources.workers.min=1", "resources.workers is not a mapping in this job; set it whole"),
        ("train.epochs=three", "train.epochs: expected a whole number, got 'three'"),
        ("resources.workers={min: 3, max: 2}", "resources.workers: min (3) is greater than max (2); swap them"),
        ("metrics.loss=a:b", "metrics.loss: 'loss' is a field of events"),
        ("optimizer.args.x=$step", "optimizer.args.x: '$step' is unknown; did you mean $steps?"),
        ("schedule.args.T_max=$steps", "schedule.target: required"),
        ("storage=gs://", "storage: '' cannot be a bucket's name; write gs://bucket/prefix"),
    ],
)
def test_a_wrong_override_is_named(refusal: Refusal, text: str, override: str, expected: str) -> None:
    (line,) = refusal(text, override)
    assert line.startswith(f"--set {override}: ")
    assert expected in line


def test_a_problem_that_unsetting_causes_is_placed_in_the_file(refusal: Refusal, text: str) -> None:
    assert refusal(text, "data.eval=null")[0].startswith("job.yaml:9: metrics: metrics are computed on data.eval")
    assert refusal(text, "train.epochs=null")[0].startswith("job.yaml:12: train: epochs or steps is required")
