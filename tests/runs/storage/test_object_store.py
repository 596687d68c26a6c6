"""Objects in a bucket, over real HTTP."""

import json
import os
import pickle
import threading
import time

import pytest

from distrib.errors import JobError, LaunchError
from distrib.runs.storage.errors import StorageError
from distrib.runs.storage.object_store import ObjectStorage

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def behind_proxy(s3_proxy, bucket, monkeypatch):
    """(proxy, storage whose requests go through it)."""
    proxy = s3_proxy
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
    proxy.heal()
    proxy.seen.clear()
    yield proxy, ObjectStorage(bucket.url)
    proxy.heal()


def test_a_forked_process_has_connections_of_its_own(bucket):
    bucket.put("a", b"ours")
    pid = os.fork()
    if pid == 0:
        bucket.put("b", bucket.get("a"))
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert bucket.get("b") == b"ours"


def test_temporary_errors_are_tried_again(behind_proxy):
    proxy, storage = behind_proxy
    proxy.answer(503, "SlowDown", method="PUT", times=3)
    storage.put("a", b"1")
    assert storage.get("a") == b"1"
    assert [method for method, _ in proxy.seen].count("PUT") == 4


def test_temporary_errors_that_last_are_told_and_end(behind_proxy, monkeypatch):
    monkeypatch.setattr("distrib.runs.storage.object_store._LONG_SECONDS", 0.5)
    proxy, storage = behind_proxy
    proxy.answer(500, "InternalError", method="PUT")
    told = []
    started = time.monotonic()
    with pytest.raises(
        StorageError, match=r"cannot write s3://runs/.*/a: .*tried for \d+ s.*check the network"
    ) as error:
        storage.patient(3, told.append).put("a", b"1")
    assert 2 < time.monotonic() - started < 40
    assert error.value.kind == "unreachable"
    assert len(told) == 1
    assert "trying again" in told[0]


@pytest.mark.parametrize("code", ["AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"])
def test_refused_credentials_are_not_tried_again(behind_proxy, code):
    proxy, storage = behind_proxy
    proxy.answer(403, code)
    with pytest.raises(StorageError, match="check the credentials") as error:
        storage.put("a", b"1")
    assert (error.value.kind, error.value.exit_code) == ("refused", 2)
    assert len(proxy.seen) == 1
    with pytest.raises(JobError, match=r"storage: cannot write .*check the credentials"):
        storage.check_writable()
    for operation in (lambda: storage.get("a"), lambda: storage.exists("a"), lambda: storage.list()):
        with pytest.raises(StorageError, match="check the credentials"):
            operation()


def test_no_such_bucket(bucket):
    with pytest.raises(JobError, match=r"storage: cannot write s3://nowhere/x/.*; create the bucket"):
        ObjectStorage("s3://nowhere/x").check_writable()


def test_no_server(bucket, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setattr("distrib.runs.storage.object_store.START_PATIENCE_SECONDS", 0.5)
    started = time.monotonic()
    with pytest.raises(LaunchError, match=r"storage: cannot write .*check the network, and AWS_ENDPOINT_URL"):
        ObjectStorage(bucket.url).check_writable()
    assert time.monotonic() - started < 20


def test_an_upload_that_breaks_off_is_no_object(behind_proxy, tmp_path):
    proxy, storage = behind_proxy
    (tmp_path / "large").write_bytes(bytes(13_000_000))
    proxy.answer(403, "AccessDenied", method="PUT", path="partNumber=2")
    with pytest.raises(StorageError, match="ACCESS_DENIED"):
        storage.put_file("a", tmp_path / "large")
    proxy.heal()
    assert storage.list() == []


def test_errors_survive_pickling():
    error = pickle.loads(pickle.dumps(StorageError("cannot", "refused")))
    assert (str(error), error.kind, error.exit_code) == ("cannot", "refused", 2)


@pytest.mark.parametrize("way", ["grows", "changes"])
def test_an_object_that_is_replaced_while_it_is_read_comes_whole(bucket, way):
    """pyarrow itself gives the beginning of a longer successor, or a shorter one with rubbish behind it."""
    is_over, number = threading.Event(), 0

    def content():
        return b"[" + b"1," * (number if way == "grows" else 40 * (number % 2)) + b"1]"

    bucket.put("a", content())

    def replace():
        nonlocal number
        writer = ObjectStorage(bucket.url)
        while not is_over.wait(0.03):
            number += 1
            writer.put("a", content())

    thread = threading.Thread(target=replace)
    thread.start()
    try:
        found = [json.loads((bucket.get if way == "grows" else bucket.get_json)("a")) for _ in range(80)]
    finally:
        is_over.set()
        thread.join()
    assert len({len(items) for items in found}) > 1
