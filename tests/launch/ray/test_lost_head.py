"""A cluster whose head is lost: the launcher ends in bounded time, and says how to resume."""

import gc
from types import SimpleNamespace

import pytest

from distrib.errors import ClusterLostError
from distrib.launch.ray.launcher import RayLauncher

pytestmark = pytest.mark.timeout(60)


class Cluster:
    """Records how it is closed."""

    def __init__(self):
        self.was_lost = None

    def close(self, *, is_lost):
        self.was_lost = is_lost


@pytest.fixture
def launcher(workplace, monkeypatch):
    from distrib.job.reader import Job

    made = RayLauncher(Job.load(workplace.job), None)
    monkeypatch.setattr(made, "_cluster", Cluster())
    return made


def leave(launcher, error=None):
    launcher.__exit__(type(error), error, None)
    return launcher._cluster.was_lost


def test_a_lost_cluster_is_left_without_another_call(launcher):
    launcher._trainers = SimpleNamespace(close=lambda: pytest.fail("called the lost head"))
    assert leave(launcher, ClusterLostError("gone"))


def test_a_cluster_that_is_lost_while_the_run_is_cleaned_up(launcher):
    def fail():
        raise ClusterLostError("gone")

    launcher._trainers = SimpleNamespace(close=fail)
    assert leave(launcher)


def test_the_end_of_a_run_is_no_loss(launcher):
    closed = []
    launcher._trainers = SimpleNamespace(close=lambda: closed.append(True))
    assert leave(launcher) is False
    assert leave(launcher, ValueError("the user's")) is False
    assert closed == [True, True]


def test_a_run_leaves_garbage_collection_as_it_was(launcher):
    gc.freeze()  # as imports and builds do
    leave(launcher)
    assert gc.get_freeze_count() == 0
