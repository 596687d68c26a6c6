"""The lease of a run on an object store."""

import json

import pytest

from distrib.errors import LaunchError
from distrib.runs import lease as module
from distrib.runs.lease import is_held_at
from distrib.runs.storage.store_lease import StoreLease, StorePlace

pytestmark = pytest.mark.timeout(60)

ELSEWHERE = {"token": "theirs", "owner": {"host": "elsewhere", "pid": 4711, "boot_id": "b", "pid_namespace": "n"}}


@pytest.fixture
def run(bucket, tmp_path):
    """(the run's objects, its mirror)."""
    folder = tmp_path / "run-1"
    folder.mkdir()
    return bucket, folder


def test_it_is_held_until_it_is_released(run):
    storage, folder = run
    lease = StoreLease.acquire_in(storage, folder)
    assert lease.is_held
    assert is_held_at(StorePlace(storage, folder), lease.token)
    with pytest.raises(LaunchError, match="run run-1 is held by process"):
        StoreLease.acquire_in(storage, folder)
    lease.release()
    assert not lease.is_held
    assert storage.list() == []


def test_one_that_another_host_writes_over_at_once_is_not_taken(run, monkeypatch):
    storage, folder = run
    monkeypatch.setattr(
        "distrib.runs.storage.store_lease.time.sleep",
        lambda _: storage.put("lease.json", json.dumps(ELSEWHERE).encode()),
    )
    with pytest.raises(LaunchError, match="was taken by another launcher at the same moment"):
        StoreLease.acquire_in(storage, folder)
    assert json.loads(storage.get("lease.json")) == ELSEWHERE


def test_a_renewal_is_seen_and_a_loss_is_noticed(run, monkeypatch):
    storage, folder = run
    lease = StoreLease.acquire_in(storage, folder)
    before = storage.get("lease.json")
    lease.renew()
    assert storage.get("lease.json") == before
    monkeypatch.setattr(module, "_RENEWAL_SECONDS", 0.0)
    lease.renew()
    assert storage.get("lease.json") != before
    storage.put("lease.json", json.dumps(ELSEWHERE).encode())
    with pytest.raises(LaunchError, match="was taken over by another launcher"):
        lease.renew()
    lease.release()
    assert json.loads(storage.get("lease.json")) == ELSEWHERE


def test_a_store_out_of_reach_says_nothing_of_another_owner(run, monkeypatch):
    storage, folder = run
    lease = StoreLease.acquire_in(storage, folder)
    monkeypatch.setattr(module, "_RENEWAL_SECONDS", 0.0)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    lease._place._storage._connection = None
    lease.renew()
    assert lease.is_held
    lease.release()
