"""Numbers, times and sizes for people."""

import math
import os
from pathlib import Path

import pytest

from distrib.observe import format as formats


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.978, "0.9780"),
        (1.0, "1.000"),
        (0.0, "0.000"),
        (-2.5, "-2.500"),
        (123456.7, "123,457"),
        (9999.7, "10,000"),
        (1234.0, "1234"),
        (2.5e-7, "2.500e-07"),
        (1e30, "1.000e+30"),
        (12345, "12,345"),
        (None, "–"),
        (True, "–"),
        ("x", "–"),
    ],
)
def test_numbers(value, text):
    assert formats.number(value) == text


def test_numbers_that_are_none():
    assert formats.number(math.nan) == "nan"


def test_values_have_the_loss_last():
    assert formats.values({"loss": 0.07, "recall": 0.5, "accuracy": None}) == "recall 0.5000  accuracy –  loss 0.07000"


@pytest.mark.parametrize(
    ("seconds", "long", "short"),
    [
        (-1, "0.0 s", "0:00"),
        (3.61, "3.6 s", "0:04"),
        (9.96, "10 s", "0:10"),
        (59.6, "1 min", "1:00"),
        (125, "2 min 5 s", "2:05"),
        (3599.9, "1 h", "1:00:00"),
        (11400, "3 h 10 min", "3:10:00"),
        (187200, "2 d 4 h", "52:00:00"),
    ],
)
def test_durations(seconds, long, short):
    assert formats.duration(seconds) == long
    assert formats.clock(max(seconds, 0)) == short


@pytest.mark.parametrize(("seconds", "text"), [(-3, "0s"), (59, "59s"), (60, "1m"), (7300, "2h"), (200000, "2d")])
def test_ages(seconds, text):
    assert formats.age(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (999, "999 B"), (1536, "1.5 KiB"), (4 * 2**20, "4 MiB"), (3 * 2**40, "3 TiB")]
)
def test_sizes(size, text):
    assert formats.num_bytes(size) == text


@pytest.mark.parametrize(("count", "text"), [(850, "850"), (25_557_032, "25.6 M"), (7e9, "7 G")])
def test_counts(count, text):
    assert formats.num_items(count) == text


def test_shares():
    assert formats.shares((32, 32)) == "32 per rank"
    assert formats.shares((10, 11, 11)) == "10 to 11 per rank"


@pytest.mark.parametrize(("speed", "text"), [(12345.6, "12,346 samples/s"), (2.5, "2.500 samples/s")])
def test_rates(speed, text):
    assert formats.rate(speed) == text


def test_places_are_relative_inside_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert formats.short_path(Path.cwd() / "runs" / "x") == os.path.join("runs", "x")
    assert formats.short_path(tmp_path / "runs") == str(tmp_path / "runs")


def test_metrics_of_several_values_are_shown():
    assert formats.value_pairs({"loss": 1.0, "f1": [0.61234, 0.5], "all": {"a": 1, "b": [[1, 2]]}}) == [
        "f1 [0.6123 0.5000]",
        "all [a 1 b [[1 2]]]",
        "loss 1.000",
    ]
    assert formats.metric_value(list(range(9))) == "[0 1 2 3 4 5 … 9 in all]"
