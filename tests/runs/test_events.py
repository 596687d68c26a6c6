"""Events: writing, torn lines, reading, following."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distrib.runs.backwards import lines_backwards, newest_event
from distrib.runs.events import EventTail, EventWriter, LineTail, parse_event, read_events


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.jsonl"


def write(path, *steps, attempt=0, event="train", **fields):
    with EventWriter(path, attempt) as writer:
        for step in steps:
            writer.write(event, step=step, epoch=0, samples=step * 8, **fields)


def steps(events):
    return [event["step"] for event in events]


def test_an_event_says_when_where_and_what(path):
    with EventWriter(path, attempt=2, clock=lambda: 5.0) as writer:
        written = writer.write("train", step=1, epoch=0, samples=64, loss=0.5)
    expected = {"time": 5.0, "attempt": 2, "event": "train", "step": 1, "epoch": 0, "samples": 64, "loss": 0.5}
    assert written == expected
    assert json.loads(path.read_text()) == expected


def test_the_time_can_be_given(path):
    with EventWriter(path, 0) as writer:
        assert writer.write("train", step=1, epoch=0, samples=1, time=7.0)["time"] == 7.0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_does_not_have_are_null(path, value):
    write(path, 1, loss=value, nested={"a": [value, 1.0]})
    [event] = read_events(path)
    assert event["loss"] is None
    assert event["nested"] == {"a": [None, 1.0]}


def test_there_are_no_events_without_a_file(path):
    assert read_events(path) == []
    assert EventTail(path).poll() == []
    assert newest_event(lines_backwards(path), "train") is None


@given(cut=st.integers(0, 400), blanks=st.booleans())
def test_a_torn_line_costs_itself_alone(tmp_path_factory, cut, blanks):
    path = tmp_path_factory.mktemp("torn") / "metrics.jsonl"
    write(path, 1, 2, 3, message='a { " \\ ü }')
    whole = path.read_bytes()
    path.write_bytes(whole[:cut])
    survivors = [step for step, line in enumerate(lines_of(whole), 1) if len(line) <= cut]
    assert steps(read_events(path)) == survivors
    write(path, 4, 5, attempt=1)
    assert steps(read_events(path)) == [*survivors, 4, 5]
    newest = newest_event(lines_backwards(path), "train")
    assert newest is not None
    assert newest["step"] == 5


def lines_of(whole):
    """The file up to the end of each of its lines, line feed apart."""
    ends = [position for position, byte in enumerate(whole) if byte == ord("\n")]
    return [whole[:end] for end in ends]


@pytest.mark.parametrize("noise", [b"\xff\xfe\n", b"[1]\n", b"12\n", b"\n", b"{\n"])
def test_lines_that_are_no_events_are_skipped(path, noise):
    write(path, 1)
    with path.open("ab") as file:
        file.write(noise)
    write(path, 2)
    assert steps(read_events(path)) == [1, 2]
    assert steps(EventTail(path).poll()) == [1, 2]


@given(st.lists(st.integers(1, 60), max_size=30))
def test_a_tail_sees_each_event_once_however_the_file_grows(tmp_path_factory, sizes):
    folder = tmp_path_factory.mktemp("tail")
    write(folder / "all", 1, 2, 3, 4)
    whole, seen = (folder / "all").read_bytes(), []
    tail = EventTail(folder / "growing")
    with (folder / "growing").open("wb", buffering=0) as file:
        for size in [*sizes, len(whole)]:
            part, whole = whole[:size], whole[size:]
            file.write(part)
            seen += tail.poll()
    assert seen == read_events(folder / "all")


def test_the_newest_event_of_a_kind_is_found_across_blocks(path):
    write(path, 1, event="eval", loss=1.0)
    write(path, 2, event="train", message="x" * 200_000)
    write(path, 3, event="train", message='not an "eval"')
    assert newest_event(lines_backwards(path), "eval")["step"] == 1
    assert newest_event(lines_backwards(path), "train")["step"] == 3
    assert newest_event(lines_backwards(path), "restart") is None


@given(st.binary(max_size=400))
def test_reading_backwards_agrees_with_reading_forwards(tmp_path_factory, noise):
    path = tmp_path_factory.mktemp("newest") / "metrics.jsonl"
    write(path, 1, 2)
    with path.open("ab") as file:
        file.write(noise)
    forwards = [event for event in read_events(path) if event.get("event") == "train"]
    assert newest_event(lines_backwards(path), "train") == forwards[-1]


def test_lines_are_followed_as_a_terminal_would_show_them(tmp_path):
    path = tmp_path / "rank-0.log"
    tail = LineTail(path)
    assert tail.poll() == []
    with path.open("wb", buffering=0) as file:
        file.write(b"one\ntwo\r\nth")
        assert tail.poll() == ["one", "two"]
        assert tail.poll() == []
        file.write(b"ree\n 10%\r 50%\r100%\n\n\xff\nlast")
        assert tail.poll() == ["three", "100%", "", "\ufffd"]
    assert tail.rest() == "last"
    assert tail.rest() is None


GOOD = b'{"time": 1.5, "attempt": 0, "event": "train", "step": 3, "epoch": 0, "samples": 24, "loss": 0.5}'


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"1.5", b'"now"'), (b"1.5", b"1e400"), (b"0, \"event", b"-1, \"event"), (b'"train"', b"7"), (b"3,", b'"3",'),
        (b"3,", b"3.0,"), (b"24", b"1" + b"0" * 400), (b'"samples"', b'"sample"'), (GOOD, b"[]"), (GOOD, b"\xff\x00"),
        (GOOD, b"[" * 100_000), (GOOD, GOOD[:-1]), (GOOD, b""),
    ],
)  # fmt: skip
def test_what_is_no_event_is_left_out(old, new):
    assert parse_event(GOOD) is not None
    assert parse_event(GOOD.replace(old, new, 1)) is None


def test_values_that_are_no_numbers_count_as_missing():
    assert parse_event(GOOD.replace(b"0.5", b"NaN"))["loss"] is None
