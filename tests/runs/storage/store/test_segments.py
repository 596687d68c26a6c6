"""Growing files as segments on a store."""

import pytest

from distrib.runs.storage.store import segments
from distrib.runs.storage.store.segments import SegmentFollower, SegmentWriter, restore

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "metrics.jsonl"


def append(file, text):
    with file.open("a") as opened:
        opened.write(text)


def test_whole_lines_are_published_as_they_come(bucket, file):
    writer = SegmentWriter(bucket, "metrics", file, attempt=0)
    writer.push()
    assert bucket.list() == []
    append(file, "one\ntw")
    writer.push()
    assert bucket.get("metrics/00000000-a0.jsonl") == b"one\n"
    append(file, "o\n")
    writer.push()
    assert bucket.list() == ["metrics/00000000-a0.jsonl"]
    assert bucket.get("metrics/00000000-a0.jsonl") == b"one\ntwo\n"


def test_a_long_file_becomes_several_segments(bucket, file, monkeypatch):
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 10)
    lines = [f"line {number}\n" for number in range(6)] + ["a line that is longer than a segment\n", "end\n"]
    writer = SegmentWriter(bucket, "metrics", file, attempt=2)
    for line in lines:
        append(file, line)
    writer.push()
    names = bucket.list("metrics")
    assert len(names) > 4
    assert all(name.endswith("-a2.jsonl") for name in names)
    assert b"".join(map(bucket.get, names)).decode() == "".join(lines)
    other = file.with_name("other")
    restore(bucket, "metrics", other)
    assert other.read_text() == "".join(lines)


def test_the_next_writer_goes_on_where_the_last_one_was_lost(bucket, file):
    first = SegmentWriter(bucket, "metrics", file, attempt=0)
    append(file, "one\n")
    first.push()
    append(file, "two\n")
    append(file, "torn")  # and then it dies
    second = SegmentWriter(bucket, "metrics", file, attempt=1)
    append(file, "\nthree\n")
    second.push()
    assert bucket.list() == ["metrics/00000000-a0.jsonl", "metrics/00000001-a1.jsonl"]
    assert bucket.get("metrics/00000001-a1.jsonl") == b"two\ntorn\nthree\n"


def test_restoring_replaces_what_is_there(bucket, file):
    append(file, "stale\n")
    restore(bucket, "metrics", file)
    assert not file.exists()
    bucket.put("metrics/00000000-a0.jsonl", b"one\n")
    append(file, "stale\n")
    restore(bucket, "metrics", file)
    assert file.read_text() == "one\n"
    writer = SegmentWriter(bucket, "metrics", file, attempt=1)
    append(file, "two\n")
    writer.push()
    assert bucket.get("metrics/00000001-a1.jsonl") == b"two\n"


def test_a_follower_sees_what_comes_from_elsewhere(bucket, file, tmp_path, monkeypatch):
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 12)
    bucket.put("metrics/00000000-a0.jsonl", b"old\n")
    restore(bucket, "metrics", file)
    elsewhere = tmp_path / "elsewhere.jsonl"
    writer = SegmentWriter(bucket, "metrics", elsewhere, attempt=1)
    follower = SegmentFollower(bucket, "metrics", file)
    expected = "old\n"
    for number in range(5):
        append(elsewhere, f"line {number}\n")
        expected += f"line {number}\n"
        writer.push()
        follower.poll()
        follower.poll()
        assert file.read_text() == expected
    own = SegmentWriter(bucket, "metrics", file, attempt=2)  # what was followed is not published again
    append(file, "restart\n")
    own.push()
    assert bucket.get(bucket.list("metrics")[-1]) == b"restart\n"
