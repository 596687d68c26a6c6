"""The positions of ranks in a control store: what ranks publish, and what the launcher makes of it."""

import time

import pytest

from distrib.compat.ray import kv
from distrib.launch.ray import positions
from distrib.launch.ray.control_store import RayControlStore
from distrib.launch.ray.positions import PositionPublisher, PublishedPositions, publish_seconds
from distrib.runs.layout import RunLayout
from distrib.train.phases import Phase, RankProgress


@pytest.fixture
def control(monkeypatch):
    """A control store in a dictionary, to which publishers may write at any time."""
    entries = {}
    monkeypatch.setattr(kv, "put", entries.__setitem__)
    monkeypatch.setattr(kv, "get", entries.get)
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
    assert 0.05e9 <= time.monotonic_ns() - before[1].since < 5e9
    publishers[1].publish()  # the rank does not advance, so its position stays what it is, and CPU time is measured
    assert published.read() == before
    assert published.cpu_seconds() > 0
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
    assert control.command_for(4) == "stacks"
    publisher.write_stacks(layout, [])
    (position,) = published.request_stacks(1.0).values()
    assert position.where is None or position.where.startswith("test_positions.py:")
    assert position.waits is False
    assert "test_stacks_are_written_and_reported" in layout.rank_log(0).read_text()


def test_many_ranks_publish_more_rarely():
    assert publish_seconds(4) == 1.0
    assert 1024 / publish_seconds(1024) <= 50
