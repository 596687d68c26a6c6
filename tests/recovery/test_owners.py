"""One owner at a time, wherever the folder lies."""

import json
import os
import shutil
import signal
import socket
import threading
import time

import pytest

from tests.support.recovery_runs import RUN, Place, assert_same, job

pytestmark = pytest.mark.timeout(120)

STEPS = 52
SPEC = job(train={"steps": STEPS})
LONG = job(model={"target": "recovery_jobs:Fragile", "args": {"seconds": 0.01}}, train={"steps": 100000})
ELSEWHERE = {"token": "theirs", "owner": {"host": "elsewhere", "pid": 4711, "boot_id": "b", "pid_namespace": "n"}}


@pytest.fixture(scope="module")
def reference(command_server, tmp_path_factory):
    place = Place(command_server, tmp_path_factory.mktemp("owners") / "reference", SPEC)
    place.start()
    yield place
    place.close()


@pytest.fixture(scope="module", autouse=True)
def abandoned(command_server, tmp_path_factory):
    """A run whose lease is another host's, which nobody renews, started while other tests run; and when it was."""
    place = Place(command_server, tmp_path_factory.mktemp("owners") / "abandoned", SPEC)
    place.stop_at(7)
    write_lease(place, 0)
    started = time.time()
    place.start()
    yield place, started
    place.close()


def write_lease(place, number):
    temporary = place.folder / "lease"
    temporary.write_text(json.dumps({**ELSEWHERE, "time": number}))
    os.replace(temporary, place.layout.folder / "lease.json")


def test_a_folder_that_is_moved_or_copied(make_place, reference):
    place, copy = make_place("moved", SPEC), make_place("copy", SPEC)
    place.stop_at(14)
    shutil.copytree(place.layout.folder, copy.layout.folder)
    shutil.move(place.folder / "runs", place.folder / "elsewhere")
    place.finish(runs="elsewhere")
    shutil.move(place.folder / "elsewhere", place.folder / "runs")
    copy.finish()
    for one in (place, copy):
        assert len(one.events("start")) == 2
        assert_same(one, reference, 2, STEPS)


def test_a_run_under_another_name(make_place, reference):
    place = make_place("renamed", SPEC)
    place.stop_at(14)
    shutil.move(place.folder / "runs" / RUN, place.folder / "runs" / "renamed")
    place.finish(run_id="renamed")
    shutil.move(place.folder / "runs" / "renamed", place.folder / "runs" / RUN)
    assert_same(place, reference, 2, STEPS)


def test_a_second_launcher_is_refused(make_place):
    place = make_place("held", LONG)
    first = place.start()
    first.wait_until(lambda: place.events("checkpoint"))
    job_file = place.layout.job_file.read_bytes()
    place.write(job(train={"steps": 7}))
    second = place.start()
    assert second.wait(60) == 3
    assert f"run run is held by process {first.pid} on {socket.gethostname()}" in second.output
    assert place.layout.job_file.read_bytes() == job_file
    first.send(signal.SIGTERM)
    assert first.wait(60) == 130


def test_two_launchers_that_begin_at_once(make_place, reference):
    place = make_place("contended", SPEC)
    launches = [place.start(), place.start()]
    codes = [launch.wait(60) for launch in launches]
    assert sorted(codes) == [0, 3]
    assert "is held by process" in launches[codes.index(3)].output
    assert_same(place, reference, 2, STEPS)


def test_an_owner_elsewhere_that_is_alive(make_place):
    place = make_place("held", SPEC)
    place.stop_at(7)
    before, is_over = place.snapshot(), threading.Event()

    def renew():
        number = 0
        while not is_over.wait(0.5):
            write_lease(place, number)
            number += 1

    write_lease(place, -1)
    renewer = threading.Thread(target=renew)
    renewer.start()
    try:
        launch = place.start()
        assert launch.wait(60) == 3
    finally:
        is_over.set()
        renewer.join()
    assert "held by process 4711 on elsewhere" in launch.output
    (place.layout.folder / "lease.json").unlink()
    assert place.snapshot() == before


def test_an_owner_elsewhere_that_is_gone(abandoned, reference):
    place, started = abandoned
    assert place.launches[-1].wait(60) == 0
    ended = place.run.record["ended"]
    assert 15 <= ended - started < 60
    assert_same(place, reference, 2, STEPS)


@pytest.mark.parametrize("saved", ["7 steps", "never"])
def test_a_launcher_that_has_lost_its_run_ends_and_touches_nothing(make_place, saved):
    place = make_place("lost", {**LONG, "checkpoint": {"every": saved}, "callbacks": ["recovery_jobs:Gates"]})
    place.close_gates(30)
    launch = place.start()
    place.wait_at_gate(launch, 30)
    write_lease(place, 0)
    committed, record = place.committed(), place.layout.record_file.read_bytes()
    place.open_gate(30)
    assert launch.wait(60) == 3
    assert "run run was taken over by another launcher" in launch.output
    assert place.committed() == committed
    assert place.layout.record_file.read_bytes() == record
    assert json.loads((place.layout.folder / "lease.json").read_bytes())["token"] == "theirs"
    assert not place.layout.weights_file.exists()
    assert place.events("restart") == []
