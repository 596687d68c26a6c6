"""A launcher whose rank 0 trains on another host, and the one that shares a mirror with it."""

import time
import uuid

import pytest

from distrib.errors import LaunchError
from distrib.launch.store_sync import StoreSync
from distrib.runs import lease as lease_module
from distrib.runs.events import EventWriter, read_events
from distrib.runs.storage.object_store import ObjectStorage
from distrib.runs.storage.run_store import RunStore
from distrib.runs.storage.store_lease import StoreLease
from distrib.train.checkpoint.upload import RunUploader
from tests.support.s3_server import BUCKET, S3Server, environment

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module")
def server():
    server = S3Server()
    yield server
    server.close()


@pytest.fixture
def url(server, monkeypatch, tmp_path):
    for name, value in environment(server.endpoint).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DISTRIB_CACHE_DIR", str(tmp_path / "launcher"))
    return f"s3://{BUCKET}/{uuid.uuid4().hex}/run"


@pytest.fixture
def held(url):
    """(the run at the launcher's host, its lease)."""
    store = RunStore.at(url)
    lease = StoreLease.acquire_in(store.storage, store.folder)
    store.pull()
    store.mark_launcher(lease.token)
    yield store, lease
    lease.release()


def wait_until(condition, keeper):
    deadline = time.monotonic() + 20
    while not condition():
        keeper.keep_up()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def write(layout, step):
    with EventWriter(layout.metrics_file, 0) as events:
        events.write("train", step=step, epoch=0, samples=step, loss=0.0)


def steps(layout):
    return [event["step"] for event in read_events(layout.metrics_file)]


def test_a_rank_0_on_another_host_is_followed(url, held, monkeypatch, tmp_path):
    store, lease = held
    keeper = StoreSync(store, lease)
    keeper.follow(attempt=0)
    monkeypatch.setenv("DISTRIB_CACHE_DIR", str(tmp_path / "rank"))
    publishing = RunUploader(url, rank=0, attempt=0, lease=lease.token)
    assert publishing.store.folder != store.folder
    publishing.begin()
    write(publishing.store.layout, 1)
    wait_until(lambda: steps(store.layout) == [1], keeper)
    write(publishing.store.layout, 2)
    log = publishing.store.layout.rank_log(0)
    log.parent.mkdir()
    log.write_text("hello\n")
    publishing.end()
    publishing.end_output(has_failed=False)
    keeper.finish()
    assert steps(store.layout) == [1, 2]
    assert store.layout.rank_log(0).read_text() == "hello\n"


def test_a_rank_0_in_the_same_mirror_is_not(url, held):
    store, lease = held
    keeper = StoreSync(store, lease)
    keeper.follow(attempt=0)
    publishing = RunUploader(url, rank=0, attempt=0, lease=lease.token)
    publishing.begin()
    write(store.layout, 1)
    publishing.push_events()
    time.sleep(1.1)
    keeper.keep_up()
    publishing.end()
    publishing.end_output(has_failed=False)
    keeper.finish()
    assert steps(store.layout) == [1]


def test_the_record_is_published_and_a_lost_lease_is_told(held, monkeypatch):
    store, lease = held
    keeper = StoreSync(store, lease)
    store.layout.record_file.write_text("{}")
    keeper.note_change()
    wait_until(lambda: store.storage.exists("run.json"), keeper)
    monkeypatch.setattr(lease_module, "_RENEWAL_SECONDS", 0.0)
    store.storage.put("lease.json", b'{"token": "theirs", "owner": {}}')
    with pytest.raises(LaunchError, match="was taken over by another launcher"):
        wait_until(lambda: False, keeper)
    keeper.settle()


def test_a_store_out_of_reach_holds_nobody_up(held, monkeypatch):
    store, lease = held
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    keeper = StoreSync(RunStore(ObjectStorage(store.url), store.folder), lease)
    keeper.note_change()
    time.sleep(1.1)
    started = time.monotonic()
    keeper.keep_up()
    assert time.monotonic() - started < 0.2
    keeper.settle()
