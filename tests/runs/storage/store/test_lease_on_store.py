"""The lease of a run on an object store."""

import json
import os
import sys
import threading
import time

import pytest

from distrib.errors import LaunchError
from distrib.runs import lease as module
from distrib.runs.lease import LEASE, ConflictError, Lease, token_of
from distrib.runs.storage.object_store import ObjectStorage
from distrib.runs.storage.store import lease as store_module
from distrib.runs.storage.store.lease import FREE, StoreLease

pytestmark = pytest.mark.timeout(60)

ELSEWHERE = {"token": "theirs", "owner": {"host": "elsewhere", "pid": 4711, "boot_id": "b", "pid_namespace": "n"}}


@pytest.fixture
def open_lease(bucket, tmp_path):
    """Opens the lease as a launcher on the host of a name would."""

    def open_(host="here", url=bucket.url):
        folder = tmp_path / host / "run-1"
        folder.mkdir(parents=True, exist_ok=True)
        return StoreLease(ObjectStorage(url), folder)

    return open_


@pytest.fixture
def without_conditions(s3_proxy, bucket, monkeypatch):
    """The same bucket, on a store that does not know conditional writes."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_proxy.endpoint)
    s3_proxy.heal()
    s3_proxy.ignored_headers = {"if-match", "if-none-match"}
    yield s3_proxy
    s3_proxy.ignored_headers = set()
    s3_proxy.heal()


def test_it_is_held_until_it_is_released(bucket, open_lease):
    lease = Lease.acquire(open_lease())
    assert lease.is_held
    assert lease.notice is None
    assert token_of(bucket.get(LEASE)) == lease.token
    with pytest.raises(LaunchError, match="run run-1 is held by process"):
        Lease.acquire(open_lease())
    lease.release()
    assert not lease.is_held
    assert bucket.get(LEASE) == FREE
    assert Lease.acquire(open_lease("another host")).is_held


def test_acquiring_does_not_wait(open_lease, monkeypatch):
    monkeypatch.setattr(store_module, "SETTLE_SECONDS", 60)
    Lease.acquire(open_lease()).release()
    started = time.monotonic()
    Lease.acquire(open_lease("another host"))
    assert time.monotonic() - started < module._EXPIRY_SECONDS


@pytest.mark.parametrize("is_first", [True, False])
def test_of_launchers_on_different_hosts_that_write_at_the_same_moment_one_wins(open_lease, is_first):
    if not is_first:
        Lease.acquire(open_lease()).release()
    stores = [open_lease(f"host-{number}") for number in range(6)]
    seen = [store.read() for store in stores]  # all have seen that the run is free before anyone writes
    won, lost = [], []
    barrier = threading.Barrier(len(stores))

    def write(store, stored, number):
        barrier.wait()
        try:
            won.append(store.write(json.dumps({**ELSEWHERE, "token": str(number)}).encode(), stored))
        except ConflictError:
            lost.append(number)

    threads = [
        threading.Thread(target=write, args=(s, v, n)) for n, (s, v) in enumerate(zip(stores, seen, strict=True))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(lost)) == (1, 5)
    assert stores[0].read().content == won[0].content


def test_a_renewal_never_overwrites_another_launchers_lease(bucket, open_lease, monkeypatch):
    monkeypatch.setattr(module, "_RENEWAL_SECONDS", 0.0)
    lease = Lease.acquire(open_lease())
    before = bucket.get(LEASE)
    lease.renew()
    assert bucket.get(LEASE) != before
    bucket.put(LEASE, json.dumps(ELSEWHERE).encode())
    with pytest.raises(LaunchError, match="was taken over by another launcher"):
        lease.renew()
    lease.release()
    assert json.loads(bucket.get(LEASE)) == ELSEWHERE


def test_a_lost_answer_to_a_write_does_not_lose_the_lease(bucket, open_lease, monkeypatch):
    monkeypatch.setattr(module, "_RENEWAL_SECONDS", 0.0)
    storage = open_lease()
    lease = Lease.acquire(storage)
    write = storage.write
    monkeypatch.setattr(storage, "write", lambda *a: (write(*a), (_ for _ in ()).throw(ConflictError))[1])
    lease.renew()
    monkeypatch.undo()
    lease.renew()
    assert lease.is_held


def test_a_store_out_of_reach_says_nothing_of_another_owner(open_lease, monkeypatch):
    monkeypatch.setattr(module, "_RENEWAL_SECONDS", 0.0)
    storage = open_lease()
    lease = Lease.acquire(storage)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    storage._object._store = None
    storage.patience_seconds = 0.0
    lease.renew()
    assert lease.is_held
    lease.release()


def test_temporary_errors_are_retried(s3_proxy, open_lease, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_proxy.endpoint)
    s3_proxy.heal()
    s3_proxy.answer(503, "SlowDown", times=2)
    assert Lease.acquire(open_lease()).is_held


class TestWithoutConditionalWrites:
    def test_ignored_conditions_are_noticed(self, without_conditions, open_lease):
        lease = Lease.acquire(open_lease())
        assert lease.is_held
        assert "no conditional writes" in lease.notice
        with pytest.raises(LaunchError, match="is held by process"):
            Lease.acquire(open_lease())
        lease.release()
        assert not lease.is_held

    def test_refused_conditions_are_noticed(self, without_conditions, open_lease):
        without_conditions.answer(501, "NotImplemented", method="PUT", times=1)
        lease = Lease.acquire(open_lease())
        assert "no conditional writes" in lease.notice
        assert lease.is_held

    def test_one_that_another_host_overwrites_is_lost(self, bucket, without_conditions, open_lease):
        storage = open_lease()
        timer = threading.Timer(0.2, bucket.put, [LEASE, json.dumps(ELSEWHERE).encode()])
        storage.write(FREE, None)  # here the store is found to have no conditions
        timer.start()
        with pytest.raises(ConflictError):
            storage.write(json.dumps({**ELSEWHERE, "token": "ours"}).encode(), storage.read())
        timer.join()
        assert json.loads(bucket.get(LEASE)) == ELSEWHERE

    def test_a_process_forked_from_one_that_used_obstore(self, open_lease):
        Lease.acquire(open_lease()).release()
        pid = os.fork()
        if pid == 0:
            lease = Lease.acquire(open_lease("child"))
            os._exit(0 if lease.is_held and lease.notice else 1)
        assert os.waitpid(pid, 0)[1] == 0

    def test_credentials_that_only_pyarrow_finds(self, open_lease, s3_proxy, monkeypatch):
        monkeypatch.setenv("AWS_ENDPOINT_URL", s3_proxy.endpoint)
        s3_proxy.heal()
        s3_proxy.answer(403, "AccessDenied", times=1)
        lease = Lease.acquire(open_lease())
        assert "no conditional writes" in lease.notice
        assert lease.is_held

    def test_credentials_that_are_refused_later_change_nothing(self, open_lease, s3_proxy, monkeypatch):
        monkeypatch.setenv("AWS_ENDPOINT_URL", s3_proxy.endpoint)
        monkeypatch.setattr(module, "_RENEWAL_SECONDS", 0.0)
        s3_proxy.heal()
        lease = Lease.acquire(open_lease())
        s3_proxy.answer(403, "AccessDenied", method="PUT", times=1)
        lease.renew()
        lease.renew()
        assert lease.is_held
        assert lease.notice is None


@pytest.mark.parametrize("has_botocore", [True, False])
def test_keys_in_a_file(bucket, open_lease, monkeypatch, tmp_path, has_botocore):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    if not has_botocore:
        monkeypatch.setitem(sys.modules, "obstore.auth.boto3", None)
    file = tmp_path / "credentials"
    file.write_text("[mine]\naws_access_key_id = testing\naws_secret_access_key = testing\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.setenv("AWS_PROFILE", "mine")
    lease = Lease.acquire(open_lease())
    assert lease.is_held
    assert lease.notice is None
    lease.release()
