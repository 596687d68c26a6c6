"""Streams that are closed, full or not read."""

import io
import os
import time

import pytest

from distrib.observe.terminal.stream import PatientStream


def test_a_paused_reader_costs_no_time_and_gets_everything_later():
    reader, writer = os.pipe()
    with open(writer, "w") as target, open(reader, "rb", buffering=0) as source:
        stream = PatientStream(target)
        started = time.monotonic()
        for number in range(10_000):
            stream.write(f"line {number}\n")
            stream.flush()
        assert time.monotonic() - started < 30  # without a reader it would wait for ever
        received = b""
        while received.count(b"\n") < 10_000:
            stream.flush()
            received += source.read(65536)
    assert received.decode().splitlines() == [f"line {number}" for number in range(10_000)]


def test_more_than_is_kept_is_dropped_and_counted(monkeypatch):
    monkeypatch.setattr("distrib.observe.terminal.stream._MAX_BUFFERED_BYTES", 100_000)
    reader, writer = os.pipe()
    with open(writer, "w") as target:
        stream = PatientStream(target)
        for _ in range(20_000):
            stream.write("0123456789\n")
            stream.flush()
        os.close(reader)
        stream.drain()
    assert not stream.is_open


def test_a_full_device():
    with open("/dev/full", "w") as target:
        stream = PatientStream(target)
        stream.write("text\n")
        stream.drain()
        assert not stream.is_open
        stream.write("more\n")
        stream.drain()


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_text_that_cannot_be_encoded(tmp_path, encoding):
    with (tmp_path / "out").open("w", encoding=encoding) as target:
        stream = PatientStream(target)
        stream.write("bad \udcff, long –\n")
        stream.drain()
    assert (tmp_path / "out").read_bytes().startswith(b"bad \\udcff, long ")


def test_a_stream_without_a_descriptor():
    target = io.StringIO()
    stream = PatientStream(target)
    stream.write("text")
    stream.flush()
    assert target.getvalue() == "text"
