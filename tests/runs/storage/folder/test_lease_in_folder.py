"""One owner of a run in a folder at a time."""

import json
import os
import subprocess
import sys
import threading
import time

import pytest

from distrib.errors import LaunchError
from distrib.runs import lease as module
from distrib.runs.owner import this_process
from distrib.runs.storage.folder.lease import FolderLease
from distrib.runs.storage.folder.run import FolderRun

ELSEWHERE = {"host": "elsewhere", "pid": 4711, "boot_id": "b", "pid_namespace": "n", "start_time": 1.0}
DIE = """\
import os, signal, sys
from pathlib import Path
from distrib.runs.storage.open import open_run
open_run(Path(sys.argv[1])).acquire()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def expiry(monkeypatch):
    """Shorter than it is."""
    assert module._RENEWAL_SECONDS * 3 < module._EXPIRY_SECONDS <= 15
    monkeypatch.setattr(module, "_EXPIRY_SECONDS", 0.5)
    monkeypatch.setattr(module, "_POLL_SECONDS", 0.05)
    return 0.5


@pytest.fixture
def after_first_read(monkeypatch):
    """Has something happen just after a lease has been read for the first time."""

    def arrange(action):
        read, is_due = FolderLease.read, iter([True])

        def read_and_act(lease):
            found = read(lease)
            if next(is_due, False):
                action()
            return found

        monkeypatch.setattr(FolderLease, "read", read_and_act)

    return arrange


def write(folder, **record):
    temporary = folder / "new"
    temporary.write_text(json.dumps({"token": "theirs", "owner": ELSEWHERE, "time": 0, **record}))
    os.replace(temporary, folder / "lease.json")


def test_it_is_held_until_it_is_released(tmp_path):
    lease = FolderRun(tmp_path).acquire()
    assert lease.is_held
    assert FolderLease(tmp_path).is_token(lease.token)
    with pytest.raises(LaunchError, match=rf"is held by process {os.getpid()} on .*stop that one first, or use"):
        FolderRun(tmp_path).acquire()
    lease.release()
    assert not lease.is_held
    assert list(tmp_path.iterdir()) == []
    assert FolderRun(tmp_path).acquire().token != lease.token


def test_that_of_a_dead_process_is_taken_at_once(tmp_path):
    subprocess.run([sys.executable, "-c", DIE, tmp_path], check=False)
    assert (tmp_path / "lease.json").exists()
    started = time.monotonic()
    assert FolderRun(tmp_path).acquire().is_held
    assert time.monotonic() - started < module._EXPIRY_SECONDS


@pytest.mark.parametrize("text", ["", "{", "[]", '{"token": "x"}', '{"owner": {}}', '{"token": "x", "owner": 3}'])
def test_one_that_cannot_be_read_is_none(tmp_path, text):
    (tmp_path / "lease.json").write_text(text)
    assert FolderRun(tmp_path).acquire().is_held


@pytest.mark.parametrize("owner", [ELSEWHERE, {**this_process(), "pid_namespace": "another container"}])
def test_that_of_a_silent_owner_elsewhere_is_waited_for(tmp_path, expiry, owner):
    write(tmp_path, owner=owner)
    started = time.monotonic()
    assert FolderRun(tmp_path).acquire().is_held
    assert time.monotonic() - started >= expiry


def test_that_of_a_living_owner_elsewhere_is_refused(tmp_path, after_first_read):
    write(tmp_path)
    after_first_read(lambda: write(tmp_path, time=1))
    with pytest.raises(LaunchError, match="held by process 4711 on elsewhere"):
        FolderRun(tmp_path).acquire()
    assert FolderLease(tmp_path).is_token("theirs")


def test_one_that_is_given_up_meanwhile_is_taken(tmp_path, after_first_read):
    write(tmp_path)
    after_first_read((tmp_path / "lease.json").unlink)
    started = time.monotonic()
    assert FolderRun(tmp_path).acquire().is_held
    assert time.monotonic() - started < module._EXPIRY_SECONDS


def test_of_many_that_ask_at_once_one_gets_it(tmp_path):
    barrier, won, refused = threading.Barrier(8), [], []

    def ask():
        barrier.wait()
        try:
            won.append(FolderRun(tmp_path).acquire())
        except LaunchError:
            refused.append(1)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(refused)) == (1, 7)
    assert won[0].is_held


def test_a_renewal_changes_what_others_see_every_few_seconds(tmp_path, monkeypatch):
    lease = FolderRun(tmp_path).acquire()
    before = (tmp_path / "lease.json").read_bytes()
    lease.renew()
    assert (tmp_path / "lease.json").read_bytes() == before
    monkeypatch.setattr(module, "_RENEWAL_SECONDS", 0.0)
    lease.renew()
    assert (tmp_path / "lease.json").read_bytes() != before
    assert lease.is_held


@pytest.mark.parametrize("is_there", [True, False])
def test_one_that_is_lost_stays_lost(tmp_path, monkeypatch, is_there):
    lease = FolderRun(tmp_path).acquire()
    monkeypatch.setattr(module, "_RENEWAL_SECONDS", 0.0)
    if is_there:
        write(tmp_path)
    else:
        (tmp_path / "lease.json").unlink()
    for act in (lease.check, lease.renew):
        with pytest.raises(LaunchError, match="was taken over by another launcher"):
            act()
    lease.release()
    assert (tmp_path / "lease.json").exists() == is_there
    assert FolderLease(tmp_path).is_token("theirs") == is_there
