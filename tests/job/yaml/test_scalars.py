"""Scalars by the core schema of YAML 1.2, and environment variables in them."""

import math
from collections.abc import Callable

import pytest

from distrib.job.reader import Job
from distrib.job.yaml.scalars import read_plain, read_scalar


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001), ("1E5", 1e5), ("1.", 1.0), (".5", 0.5), ("-.5e+2", -50.0), ("+1.5", 1.5), ("1.0e-3", 0.001),
        ("017", 17), ("0o17", 15), ("0x1F", 31), ("-3", -3), ("+3", 3), ("0", 0), ("00", 0),
        (".inf", math.inf), ("-.INF", -math.inf), ("+.Inf", math.inf),
        ("~", None), ("", None), ("null", None), ("Null", None), ("NULL", None),
        ("true", True), ("True", True), ("FALSE", False),
    ],
)  # fmt: skip
def test_core_schema(text: str, value: object) -> None:
    read = read_plain(text)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize("text", [".nan", ".NaN", ".NAN"])
def test_not_a_number(text: str) -> None:
    assert math.isnan(float(str(read_plain(text))))


@pytest.mark.parametrize(
    "text",
    [
        "on", "off", "yes", "no", "y", "n", "tRUE", "nULL", "2024-01-01", "12:30:00", "190:20:30", "1_000", "0b11",
        "0o8", "0xg", "e3", ".", "-", "+", "1e", "inf", "nan", ".iNF", "-.nan", "-0x1F", "1 2", "=", "$steps", "٣",
    ],
)  # fmt: skip
def test_all_else_is_text(text: str) -> None:
    assert read_plain(text) == text


def test_the_same_through_a_file(load: Callable[..., Job], text: str) -> None:
    values = "{lr: 1e-3, mode: on, day: 2024-01-01, time: 1:30, eight: 0o10, ten: 010, none: ~, word: '1', empty: ''}"
    args = load(text.replace("{hidden: 256}", values)).spec.model.args
    assert args == {
        "lr": 0.001, "mode": "on", "day": "2024-01-01", "time": "1:30", "eight": 8, "ten": 10, "none": None,
        "word": "1", "empty": "",
    }  # fmt: skip


def test_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBER", "17")
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.setenv("NESTED", "${NUMBER}")
    assert read_scalar("${NUMBER}", is_plain=True) == 17
    assert read_scalar("${NUMBER}", is_plain=False) == "17"
    assert read_scalar("${NUMBER}0", is_plain=True) == "170"
    assert read_scalar("a/${NUMBER}/${NUMBER}", is_plain=True) == "a/17/17"
    assert read_scalar("${EMPTY}", is_plain=True) == ""
    assert read_scalar("${NESTED}", is_plain=True) == "${NUMBER}"
    assert read_scalar("$NUMBER", is_plain=True) == "$NUMBER"


def test_variables_stay_unexpanded_in_the_text(
    load: Callable[..., Job], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROOT", "here")
    monkeypatch.setenv("SEED", "3")
    written = text.replace("hidden: 256", "hidden: '${ROOT}/x'").replace("epochs: 10", "epochs: 10\n  seed: ${SEED}")
    job = load(written, "train.log_every=${SEED}", "data.train.args.path='${SEED}'", "data.eval.args={path: '${ROOT}'}")
    assert job.spec.train.seed == job.spec.train.log_every == 3
    assert job.spec.data.train.args["path"] == "3"
    assert "here" not in job.text
    monkeypatch.setenv("ROOT", "there")
    monkeypatch.setenv("SEED", "4")
    again = load(job.text).spec
    assert again.model.args["hidden"] == "there/x"
    assert again.train.seed == again.train.log_every == 4
    assert again.data.train.args["path"] == "4"
