"""Workers that Ray cannot start are found and reported with what they wrote, instead of being waited for."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from distrib.compat.ray.raylet_log import RayletLog
from distrib.errors import LaunchError
from distrib.launch.ray.cluster import worker_deaths
from distrib.launch.ray.cluster.worker_deaths import WorkerDeaths
from distrib.launch.ray.trainers import start_watch
from distrib.launch.ray.trainers.start_watch import StartWatch, start_timeout_seconds

STARTED = (
    "[2026-11-25 17:24:34,647 I 25848 25848] (raylet) worker_pool.cc:564: Started worker process with pid {} w=1\n"
)


@pytest.fixture
def ended_pid():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.fixture
def host(tmp_path, monkeypatch):
    """A host whose Ray logs to a folder; the time is what the test says."""
    clock = SimpleNamespace(now=1000.0)
    for module in (start_watch, worker_deaths):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    notices, trainer = [], SimpleNamespace(num_ready=0)

    def log(output="", errors=""):
        for name, text in (("raylet.out", output), ("raylet.err", errors)):
            with (tmp_path / name).open("a") as file:
                file.write(text)

    def begin(log_positions=None):
        return StartWatch(trainer, WorkerDeaths(lambda: log_positions or RayletLog(tmp_path)), notices.append)

    log()
    return SimpleNamespace(clock=clock, notices=notices, trainer=trainer, log=log, begin=begin, folder=tmp_path)


def poll(host, watch, seconds):
    for _ in range(int(seconds)):
        host.clock.now += 1.0
        watch.poll()


def test_workers_that_end_at_once_are_reported_with_what_they_wrote(host, ended_pid):
    host.log(
        STARTED.format(ended_pid), "Traceback (most recent call last):\n\nModuleNotFoundError: No module named 'x'\n"
    )
    with pytest.raises(LaunchError, match="the worker process that Ray started has ended") as error:
        poll(host, host.begin(), 20)
    assert "ModuleNotFoundError: No module named 'x'" in str(error.value)
    assert host.clock.now < 1010


def test_what_was_logged_before_is_not_this_run_s(host, ended_pid):
    host.log(STARTED.format(ended_pid), "of another run\n")
    positions = RayletLog(host.folder, *((host.folder / name).stat().st_size for name in ("raylet.out", "raylet.err")))
    watch = host.begin(positions)
    poll(host, watch, 20)
    host.log(STARTED.format(ended_pid), "of this run\n")
    with pytest.raises(LaunchError, match="of this run") as error:
        poll(host, watch, 20)
    assert "of another run" not in str(error.value)


def test_a_worker_that_has_registered_or_lives_may_still_come_to_run(host, ended_pid):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as alive:
        host.log(STARTED.format(ended_pid) + STARTED.format(alive.pid))
        watch = host.begin()
        poll(host, watch, 100)
    (host.folder / f"python-core-worker-01ff_{alive.pid}.log").touch()
    poll(host, watch, 100)
    (notice,) = host.notices
    assert notice == f"waiting for Ray to start the first worker for 30 s; its logs are in {host.folder}"


def test_a_first_worker_ends_the_watch(host, ended_pid):
    watch = host.begin()
    poll(host, watch, 20)
    host.trainer.num_ready = 1
    poll(host, watch, 2)
    host.log(STARTED.format(ended_pid))
    host.trainer.num_ready = 0
    poll(host, watch, 2000)
    assert host.notices == []


def test_a_start_without_any_sign_is_not_waited_for_forever(host, monkeypatch):
    monkeypatch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "20")
    with pytest.raises(LaunchError, match="no worker has started within 620 s"):
        poll(host, host.begin(RayletLog(None)), 700)


def test_the_start_timeout_is_that_of_ray_train(monkeypatch):
    from ray.train.v2._internal import constants

    monkeypatch.delenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", raising=False)
    assert start_timeout_seconds() == constants.DEFAULT_WORKER_GROUP_START_TIMEOUT_S
    monkeypatch.setenv(constants.WORKER_GROUP_START_TIMEOUT_S_ENV_VAR, "7.5")
    assert start_timeout_seconds() == 7.5
    monkeypatch.setenv(constants.WORKER_GROUP_START_TIMEOUT_S_ENV_VAR, "soon")
    assert start_timeout_seconds() == 60.0
