"""Readers of a run whose files are damaged show what can be read, with a note, or say in a line what is wrong."""

import json

import pytest
from typer.testing import CliRunner

from distrib.cli.main import app
from distrib.errors import DistribError
from distrib.runs.events import EventWriter
from distrib.runs.record import update_record

READERS = {
    "status": ["status", "RUN"],
    "status --json": ["status", "RUN", "--json"],
    "watch": ["watch", "RUN"],
    "compare": ["compare", "RUN", "OTHER"],
    "logs": ["logs", "RUN"],
    "list": ["list", "--runs-dir", "RUNS"],
    "list --json": ["list", "--runs-dir", "RUNS", "--json"],
}
EVENT = {"time": 1.0, "attempt": 0, "event": "train", "step": 7, "epoch": 0, "samples": 56, "loss": 0.5}


def lines(*texts):
    return b"".join(text if isinstance(text, bytes) else json.dumps(text).encode() + b"\n" for text in texts)


DAMAGED_EVENTS = {
    "nothing": b"",
    "a line cut short": lines(EVENT, b'{"time": 2.0, "attempt": 0, "ev'),
    "bytes": lines(EVENT, b"\x00\xff\xfe" * 50 + b"\n", EVENT),
    "wrong types": lines(EVENT, {**EVENT, "step": "8"}, {**EVENT, "time": None}, {**EVENT, "loss": {"a": [1]}}),
    "fields missing": lines(EVENT, {"event": "train"}, {}, []),
    "an infinite time": lines(EVENT, b'{"time": 1e999, "attempt": 0, "event": "eval", "step": 9, "samples": 1}\n'),
    "no number": lines(b'{"time": 1, "attempt": 0, "event": "train", "step": 7, "samples": 56, "loss": NaN}\n'),
    "out of order": lines({**EVENT, "step": 90, "time": 9.0}, {**EVENT, "attempt": 3, "step": 2}, EVENT),
}
DAMAGED_RECORDS = {
    "half": lambda text: text[: len(text) // 2],
    "nothing": lambda text: b"",
    "bytes": lambda text: b"\xff\x00" * 40,
    "a list": lambda text: b"[1]",
    "a time that is text": lambda text: text.replace(b'"started": ', b'"started": "x", "was": '),
    "no number": lambda text: text.replace(b'"started": ', b'"started": NaN, "was": '),
    "a name that is a list": lambda text: text.replace(b'"name": ', b'"name": [1], "was": '),
    "a count that is text": lambda text: text.replace(b'"completed_steps": null', b'"completed_steps": "x"'),
}


@pytest.fixture
def damaged(run):
    """A run that has stopped, to be damaged, beside an intact one."""
    other = run.folder.with_name("other")
    for folder in (run.folder, other):
        folder.mkdir(exist_ok=True)
        (folder / "run.json").write_bytes(run.layout.record_file.read_bytes())
        with EventWriter(folder / "metrics.jsonl", 0) as events:
            events.write("train", step=7, epoch=0, samples=56, loss=0.5)
    for folder in (run.folder, other):
        update_record(folder, status="stopped")
    return run


@pytest.fixture
def read(damaged):
    places = {
        "RUN": str(damaged.folder),
        "OTHER": str(damaged.folder.with_name("other")),
        "RUNS": str(damaged.folder.parent),
    }

    def read(name):
        """What a reader prints, on both streams; an error must be one that is reported in a line."""
        result = CliRunner().invoke(app, [places.get(argument, argument) for argument in READERS[name]])
        assert result.exception is None or isinstance(result.exception, SystemExit | DistribError), result.exception
        return result.output + (str(result.exception) if isinstance(result.exception, DistribError) else "")

    return read


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("damage", DAMAGED_EVENTS)
def test_damaged_events(damaged, read, reader, damage):
    damaged.layout.metrics_file.write_bytes(DAMAGED_EVENTS[damage])
    output = read(reader)
    assert "NaN" not in output
    assert "Infinity" not in output
    if reader == "status" and damage not in ("nothing", "out of order"):
        assert "7" in output
    is_noted = damage in ("a line cut short", "bytes", "wrong types", "fields missing", "an infinite time")
    if reader in ("status", "watch", "compare") and is_noted:
        assert "metrics.jsonl has" in " ".join(output.split())


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("damage", DAMAGED_RECORDS)
def test_a_damaged_record(damaged, read, reader, damage):
    file = damaged.layout.record_file
    content = DAMAGED_RECORDS[damage](file.read_bytes())
    assert content != file.read_bytes()
    file.write_bytes(content)
    output = read(reader)
    if reader != "logs":
        assert "cannot be read" in " ".join(output.split())
    if reader == "list --json":
        rows = {row["id"]: row["status"] for row in json.loads(output)["runs"]}
        assert rows == {damaged.id: "unreadable", "other": "stopped"}


def test_events_that_must_not_be_read(damaged, read):
    damaged.layout.metrics_file.unlink()
    damaged.layout.metrics_file.mkdir()
    for reader in ("status", "watch", "compare"):
        assert "cannot be read" in read(reader)
