"""run.json and the view of a run."""

import json
import os
import subprocess
import sys

import pytest

from distrib.errors import JobError
from distrib.runs.events import EventWriter
from distrib.runs.find import find_runs
from distrib.runs.record import RECORD_FIELDS, create_record, update_record
from distrib.runs.run import Run


def create(folder, **fields):
    known = {"name": "digits", "request": {"device": "cpu"}, "schedule": {"total_steps": 3}, "provenance": {}}
    create_record(folder, **{**known, **fields})
    return Run(folder)


@pytest.fixture
def run(tmp_path):
    return create(tmp_path / "digits-1")


def test_a_new_run_is_running_and_ours(run):
    assert (run.id, run.status, run.error) == ("digits-1", "running", None)
    assert run.folder.is_absolute()
    record = run.record
    assert tuple(record) == RECORD_FIELDS
    assert record["owner"]["pid"] == os.getpid()
    assert record["schedule"] == {"total_steps": 3}
    assert record["ended"] is None


def test_an_update_changes_what_it_names_and_notes_the_end(run):
    update_record(run.folder, first_step_seconds=3.5)
    assert run.record["ended"] is None
    update_record(run.folder, status="finished", result={"loss": float("nan")})
    record = run.record
    assert record["status"] == run.status == "finished"
    assert record["ended"] >= record["started"]
    assert record["first_step_seconds"] == 3.5
    assert record["result"] == {"loss": None}
    assert os.listdir(run.folder) == ["run.json"]


@pytest.mark.parametrize("changes", [{"sttus": "failed"}, {"status": "exploded"}])
def test_an_update_that_no_reader_knows_is_a_bug(run, changes):
    with pytest.raises(ValueError, match=r"run\.json cannot hold"):
        update_record(run.folder, **changes)


def test_a_run_whose_launcher_died_is_failed(tmp_path):
    code = f"from pathlib import Path; from distrib.runs.record import create_record; import os; \
create_record(Path({str(tmp_path / 'r')!r}), name='r', request={{}}, schedule=None, provenance={{}}); os._exit(9)"
    process = subprocess.Popen([sys.executable, "-c", code])
    process.wait(30)
    run = Run(tmp_path / "r")
    assert run.record["status"] == "running"
    assert run.status == "failed"
    assert run.error["kind"] == "infrastructure"
    assert f"process {process.pid}" in run.error["message"]


def test_metrics_are_those_of_the_last_evaluation(run):
    assert run.metrics == {}
    with EventWriter(run.layout.metrics_file, 0) as writer:
        writer.write("train", step=1, epoch=0, samples=8, loss=2.0, lr=0.1)
        assert run.metrics == {"loss": 2.0}
        writer.write("eval", step=1, epoch=0, samples=8, loss=1.5, accuracy=0.5, eval_seconds=0.1)
        writer.write("eval", step=2, epoch=0, samples=16, loss=1.0, accuracy=0.75, eval_seconds=0.1)
        writer.write("train", step=3, epoch=0, samples=24, loss=0.5, lr=0.1)
    assert run.metrics == {"loss": 1.0, "accuracy": 0.75}
    assert len(run.events()) == 4


def test_a_run_can_be_moved(run, tmp_path):
    update_record(run.folder, status="finished")
    run.folder.rename(tmp_path / "other")
    moved = Run(tmp_path / "other")
    assert (moved.id, moved.status) == ("other", "finished")
    assert str(tmp_path) not in moved.layout.record_file.read_text()


def test_what_is_not_a_run_says_so(tmp_path):
    with pytest.raises(JobError, match=r"is not a run: it has no run\.json"):
        Run(tmp_path).status  # noqa: B018
    for text in ("{", "[]", "{}", '{"status": "running", "schedule": 3}', '{"status": "failed", "started": "x"}'):
        (tmp_path / "run.json").write_text(text)
        with pytest.raises(JobError, match="cannot be read"):
            Run(tmp_path).record  # noqa: B018


def test_runs_are_listed_newest_first_and_unreadable_ones_last(tmp_path):
    for number, started in enumerate([2.0, 3.0, 1.0]):
        create(tmp_path / f"r{number}")
        update_record(tmp_path / f"r{number}", started=started)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "run.json").write_text('{"id"')
    (tmp_path / "no run").mkdir()
    (tmp_path / "file").touch()
    assert [run.id for run in find_runs(tmp_path)] == ["r1", "r0", "r2", "broken"]
    assert find_runs(tmp_path / "missing") == []


def test_readers_never_see_a_part_of_a_record(run):
    code = "import sys; from pathlib import Path; from distrib.runs.record import update_record\n\
for number in range(100): update_record(Path(sys.argv[1]), result={'text': 'x' * 50_000})"
    with subprocess.Popen([sys.executable, "-c", code, str(run.folder)]) as process:
        while process.poll() is None:
            assert json.loads(run.layout.record_file.read_bytes())["name"] == "digits"
    assert process.returncode == 0
