"""The run that a user means."""

import os

import pytest

from distrib.errors import JobError
from distrib.runs.events import EventWriter
from distrib.runs.find import NoRunError, find_run, find_runs
from distrib.runs.run import Run
from distrib.runs.storage.errors import StorageError
from distrib.runs.storage.store.mirror import mirror_folder

pytestmark = pytest.mark.timeout(60)


def create(location, **fields):
    run = Run(location, is_training=True)
    run.create_record(**{"name": "digits", "request": {}, "schedule": {"total_steps": 3}, "provenance": {}, **fields})
    return run


@pytest.fixture
def stored(bucket):
    """A run on a store that has trained three steps."""
    run = create(f"{bucket.url}/one")
    with EventWriter(run.layout.metrics_file, 0) as events:
        events.write("train", step=3, epoch=0, samples=9, loss=0.5)
    run.storage.publish_events(0)
    run.write_job("name: digits\n")
    return run


def test_in_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    create(tmp_path / "runs" / "one", started=1.0)
    create(tmp_path / "elsewhere" / "two", started=2.0)
    assert find_run("one").folder == tmp_path / "runs" / "one"
    assert find_run("two", "elsewhere").id == find_run("elsewhere/two").id == "two"
    assert (
        find_run("two", f"file://{tmp_path}/elsewhere").id == find_run(f"file://{tmp_path}/elsewhere/two").id == "two"
    )
    assert [run.id for run in find_runs("runs")] == ["one"]
    with pytest.raises(NoRunError, match=r"RUN: there is no run 'onr' in runs; did you mean 'one'\?"):
        find_run("onr")
    with pytest.raises(NoRunError, match="RUN: there is no run 'nothing' in runs; distrib list shows the runs"):
        find_run("nothing")
    with pytest.raises(NoRunError, match="is a folder but not of a run"):
        find_run("elsewhere/")


def test_on_a_store(bucket, stored):
    for run in (find_run("one", bucket.url), find_run(f"{bucket.url}/one/")):
        assert (run.id, run.location, run.status, run.steps) == ("one", f"{bucket.url}/one", "running", (3, 3))
        assert run.job_file.read_text() == "name: digits\n"
        assert run.folder != stored.folder
    with pytest.raises(NoRunError, match=rf"there is no run 'onr' in {bucket.url}; did you mean 'one'\?"):
        find_run("onr", bucket.url)
    with pytest.raises(JobError, match="RUN: 'ftp://' is not supported"):
        find_run("ftp://a/b")


def test_what_changes_is_seen_and_weights_come_when_asked_for(bucket, stored):
    run = find_run("one", bucket.url)
    assert not run.weights.exists()
    bucket.put("one/model.safetensors", b"first")
    bucket.put("one/best.safetensors", b"best")
    assert run.weights.read_bytes() == b"first"
    assert run.best_weights.read_bytes() == b"best"
    bucket.put("one/model.safetensors", b"second")
    stored.update_record(status="finished")
    run.refresh()
    assert run.status == "finished"
    assert find_run("one", bucket.url).weights.read_bytes() == b"second"


def test_all_runs_of_a_store_are_listed(bucket, stored):
    for number in range(2, 5):
        create(f"{bucket.url}/run-{number}", started=float(number))
    bucket.put("no-run/x", b"")
    assert [run.id for run in find_runs(bucket.url)] == ["one", "run-4", "run-3", "run-2"]
    assert find_runs(f"{bucket.url}/nothing") == []


def test_a_store_out_of_reach(bucket, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setattr("distrib.runs.storage.object_store.START_PATIENCE_SECONDS", 0.5)
    with pytest.raises(StorageError, match=r"cannot list .*check the network") as error:
        find_runs(bucket.url)
    assert error.value.exit_code == 3


def test_a_mirror_is_the_users_own(monkeypatch, tmp_path):
    monkeypatch.delenv("DISTRIB_CACHE_DIR", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = mirror_folder("s3://bucket/runs/one", "work")
    assert folder.name == "one"
    assert folder != mirror_folder("s3://bucket/other/one", "work")
    (cache,) = tmp_path.iterdir()
    assert cache.stat().st_mode & 0o777 == 0o700
    cache.chmod(0o777)
    with pytest.raises(JobError, match="this user alone may write to; choose another place with DISTRIB_CACHE_DIR"):
        mirror_folder("s3://bucket/runs/one", "work")
    cache.chmod(0o700)
    cache.rename(tmp_path / "real")
    os.symlink(tmp_path / "real", cache)
    with pytest.raises(JobError, match="not a folder that this user alone"):
        mirror_folder("s3://bucket/runs/one", "work")
