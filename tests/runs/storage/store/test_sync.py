"""A launcher whose rank 0 trains on another host, and one that shares a mirror with it."""

import time
import uuid

import pytest

from distrib.errors import LaunchError
from distrib.runs import lease as lease_module
from distrib.runs.events import EventWriter, read_events
from distrib.runs.lease import LEASE
from distrib.runs.run import Run
from distrib.runs.storage.object_store import ObjectStorage
from distrib.runs.storage.store.mirror import RunMirror
from distrib.runs.storage.store.rank import StoreRank
from distrib.runs.storage.store.sync import StoreSync

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def held(bucket):
    """(the run at the launcher's host, its lease)."""
    run = Run(f"{bucket.url}/{uuid.uuid4().hex}/run", is_training=True)
    lease = run.storage.acquire()
    run.storage.prepare(lease)
    yield run, lease
    lease.release()


def wait_until(condition, sync):
    deadline = time.monotonic() + 20
    while not condition():
        sync.poll()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def write(layout, step):
    with EventWriter(layout.metrics_file, 0) as events:
        events.write("train", step=step, epoch=0, samples=step, loss=0.0)


def steps(layout):
    return [event["step"] for event in read_events(layout.metrics_file)]


def test_a_rank_0_on_another_host_is_followed(held, monkeypatch, tmp_path):
    run, lease = held
    sync = run.storage.sync(lease)
    sync.follow(attempt=0)
    monkeypatch.setenv("DISTRIB_CACHE_DIR", str(tmp_path / "rank"))
    rank = StoreRank(run.location, rank=0, attempt=0, lease=lease.token)
    assert rank.layout.folder != run.folder
    rank.start()
    write(rank.layout, 1)
    wait_until(lambda: steps(run.layout) == [1], sync)
    write(rank.layout, 2)
    log = rank.layout.rank_log(0)
    log.parent.mkdir()
    log.write_text("hello\n")
    rank.publish_records()
    rank.close(has_failed=False)
    sync.finish()
    assert steps(run.layout) == [1, 2]
    assert run.layout.rank_log(0).read_text() == "hello\n"


def test_a_rank_0_in_the_same_mirror_is_not_followed(held):
    run, lease = held
    sync = run.storage.sync(lease)
    sync.follow(attempt=0)
    rank = StoreRank(run.location, rank=0, attempt=0, lease=lease.token)
    rank.start()
    write(run.layout, 1)
    time.sleep(1.1)
    sync.poll()
    rank.publish_records()
    rank.close(has_failed=False)
    sync.finish()
    assert steps(run.layout) == [1]


def test_events_of_a_rank_that_died_before_its_first_upload_are_uploaded(held, bucket):
    run, _ = held
    write(run.layout, 1)
    run.storage.publish_leftovers(0)
    assert [event["step"] for event in Run(run.location).events()] == [1]


def test_the_record_is_uploaded_and_a_lost_lease_is_reported(held, monkeypatch):
    run, lease = held
    objects = ObjectStorage(run.location)
    sync = run.storage.sync(lease)
    run.layout.record_file.write_text("{}")
    sync.record_changed()
    wait_until(lambda: objects.exists("run.json"), sync)
    monkeypatch.setattr(lease_module, "_RENEWAL_SECONDS", 0.0)
    objects.put(LEASE, b'{"token": "theirs", "owner": {}}')
    with pytest.raises(LaunchError, match="was taken over by another launcher"):
        wait_until(lambda: False, sync)
    sync.join()


def test_a_store_out_of_reach_does_not_block_the_launcher(held, monkeypatch):
    run, lease = held
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    sync = StoreSync(ObjectStorage(run.location, 0), RunMirror(run.folder), lease)
    sync.record_changed()
    time.sleep(1.1)
    started = time.monotonic()
    sync.poll()
    assert time.monotonic() - started < 2
    sync.join()
