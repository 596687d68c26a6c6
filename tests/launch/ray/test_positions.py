"""The positions of ranks in a control store: what ranks publish, and what the launcher makes of it."""

import subprocess
import sys
import time
from dataclasses import asdict, replace

import psutil
import pytest

from distrib.compat.ray import kv
from distrib.launch.ray import positions
from distrib.launch.ray.control_store import RayControlStore
from distrib.launch.ray.positions import PositionPublisher, PublishedPositions, publish_seconds
from distrib.launch.ray.rank_process import RankProcess
from distrib.runs.layout import RunLayout
from distrib.train.phases import Phase, RankProgress


@pytest.fixture
def control(monkeypatch):
    """A control store in a dictionary, to which publishers may write at any time."""
    entries = {}
    monkeypatch.setattr(kv, "put", lambda key, value, timeout: entries.update({key: value}))
    monkeypatch.setattr(kv, "get", lambda key, timeout: entries.get(key))
    monkeypatch.setattr(positions, "publish_seconds", lambda world_size: 0.0)
    return RayControlStore("key")


def test_positions_are_known_once_all_ranks_have_begun(control):
    ranks = [RankProgress.private() for _ in range(2)]
    publishers = [PositionPublisher(control, 0, rank, 2, progress) for rank, progress in enumerate(ranks)]
    published = PublishedPositions(control, 0, 2)
    publishers[0].publish()
    assert published.read() == {}
    ranks[1].complete_step(3)
    ranks[1].enter(Phase.DATA)
    time.sleep(0.05)
    publishers[1].publish()
    before = published.read()
    assert (before[1].completed_steps, before[1].phase, before[0].phase) == (3, Phase.DATA, Phase.START)
    assert 0.05e9 <= time.monotonic_ns() - before[1].since < 60e9
    publishers[1].publish()  # the rank does not advance, so its position stays what it is, and CPU time is measured
    assert published.read() == before
    assert published.cpu_seconds()[1] > 0
    ranks[1].enter(Phase.DATA)  # advances within the same phase
    publishers[1].publish()
    assert published.read() != before


def test_stacks_are_written_and_reported(control, tmp_path):
    layout = RunLayout(tmp_path)
    layout.rank_log(0).parent.mkdir()
    publisher, published = (
        PositionPublisher(control, 4, 0, 1, RankProgress.private()),
        PublishedPositions(control, 4, 1),
    )
    assert published.request_stacks(0.0) == {}
    assert control.commands_for(4) == ["stacks"]
    publisher.write_stacks(layout, [])
    (position,) = published.request_stacks(1.0).values()
    assert position.where is None or position.where.startswith("test_positions.py:")
    assert position.waits is False
    assert "test_stacks_are_written_and_reported" in layout.rank_log(0).read_text()


def test_many_ranks_publish_more_rarely():
    assert publish_seconds(4) == 1.0
    assert 1024 / publish_seconds(1024) <= 50


def test_a_rank_that_cannot_publish_counts_as_busy(control, monkeypatch):
    """Its thread for it waits for Python's lock, which native code of its main thread holds."""
    now = [100.0]
    publisher, published = (
        PositionPublisher(control, 0, 0, 1, RankProgress.private()),
        PublishedPositions(control, 0, 1),
    )
    publisher.publish()
    monkeypatch.setattr(positions.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(positions, "publish_seconds", lambda world_size: 1.0)
    published.read()
    assert published.cpu_seconds() == {0: 0.0}
    now[0] += 4.0
    published.read()
    assert published.cpu_seconds() == {0: 0.0}
    now[0] += 6.0
    published.read()
    assert published.cpu_seconds() == {0: 10.0}


def test_a_rank_on_this_host_that_cannot_publish_is_measured(control, monkeypatch):
    now = [100.0]
    published = PublishedPositions(control, 0, 1)
    PositionPublisher(control, 0, 0, 1, RankProgress.private()).publish()
    monkeypatch.setattr(positions.time, "monotonic", lambda: now[0])
    published.read()
    now[0] += 1000.0
    control.write("rank/0/0", {"name": "this host", **asdict(RankProcess.this_one("node"))})
    assert 0.0 < published.cpu_seconds()[0] < 1000.0
    control.write("rank/0/0", {"name": "this host", **asdict(replace(RankProcess.this_one("node"), started=1.0))})
    assert published.cpu_seconds() == {0: 1000.0}


def test_a_process_is_killed_but_not_a_later_one_with_its_number():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        found = RankProcess("host", "node", process.pid, psutil.Process(process.pid).create_time())
        replace(found, started=found.started - 60).kill()
        assert process.poll() is None
        found.kill()
        assert process.wait(30) == -9


def test_where_a_rank_stands_is_reported_before_its_native_stacks(control, tmp_path, monkeypatch):
    layout = RunLayout(tmp_path)
    layout.rank_log(0).parent.mkdir()
    seen = []
    monkeypatch.setattr(positions, "write_native_stacks", lambda processes: seen.append(control.read("stacks/0/0")))
    PositionPublisher(control, 0, 0, 1, RankProgress.private()).write_stacks(layout, [])
    assert seen[0][1] is False


def test_commands_do_not_replace_each_other(control):
    for command in ("stop", "stacks", "stop"):
        control.send_command(0, command)
    assert control.commands_for(0) == ["stop", "stacks"]
    assert control.commands_for(1) == []
