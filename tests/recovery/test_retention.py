"""Which checkpoints exist while a run trains, and after it has ended."""

from itertools import pairwise

import pytest

from distrib.runs.checkpoints import CheckpointFolder
from distrib.runs.storage.folder.checkpoints import FolderCheckpoints
from tests.support.recovery_runs import job

pytestmark = pytest.mark.timeout(120)


@pytest.mark.parametrize("keep", [1, 3])
def test_as_many_as_are_to_be_kept(make_place, keep):
    place = make_place("kept", job(checkpoint={"keep": keep, "every": "3 steps"}))
    launch = place.start()
    most, was_there = 0, False
    while launch.poll() is None:
        steps = place.committed() or place.committed()  # one may come and another go while the folder is listed
        assert steps or not was_there
        was_there = was_there or bool(steps)
        most = max(most, len(steps))
    assert launch.poll() == 0
    assert keep <= most <= keep + 1
    assert len(place.committed()) == keep
    assert len(list(place.layout.checkpoints.iterdir())) == keep
    assert place.committed()[-1] == 150
    saved = [event["step"] for event in place.events("checkpoint")]
    assert saved == [*range(3, 151, 3)]


def test_never(make_place):
    place = make_place("unsaved", job(checkpoint={"every": "never"}, train={"steps": 20}))
    place.plan([{"moment": "forward", "rank": 1, "nth": 10, "victim": "self"}])
    place.finish()
    assert not place.layout.checkpoints.exists()
    assert [event["step"] for event in place.events("start")] == [0, 0]
    assert place.layout.best_file.exists()


def test_every_second(make_place):
    model = {"target": "recovery_jobs:Fragile", "args": {"seconds": 0.02}}
    place = make_place("timed", job(model=model, checkpoint={"every": "1 second", "keep": 9}, train={"steps": 150}))
    place.finish()
    saved = place.events("checkpoint")
    assert 2 <= len(saved) - 1 <= 5
    assert saved[-1]["step"] == 150
    begun = [event["time"] - event["save_seconds"] for event in saved[:-1]]
    assert all(later - earlier >= 0.95 for earlier, later in pairwise(begun))


def test_a_save_that_is_cut_off_changes_nothing(make_place):
    place = make_place("cut", job(checkpoint={"keep": 1}))
    place.plan([{"moment": "write", "rank": 1, "nth": 3, "victim": "launcher"}])
    assert place.start().wait(60) < 0
    (folder,) = FolderCheckpoints(place.layout.checkpoints).list()
    assert folder.step == 14
    files = folder.files()
    folder.verify(files, files)
    unfinished = CheckpointFolder.at(place.layout.checkpoints, 21, 0)
    assert unfinished.path.is_dir()
    assert "from step 14 of" in place.finish().output
    assert not unfinished.path.exists()


def test_best_weights_that_are_being_written_hold_up_no_save(make_place):
    """Only the commit of a checkpoint that speaks of them."""
    place = make_place("slow", job(train={"steps": 60}))
    place.plan([{"moment": "best", "rank": 0, "nth": 1, "victim": "none"}])
    launch = place.start()
    launch.wait_until(lambda: not list(place.strikes.iterdir()))
    launch.wait_until(lambda: any(event["step"] >= 27 for event in place.events("train")))
    assert place.committed() == [7, 14]
    assert not place.layout.best_file.exists()
    (place.folder / "released").touch()
    assert launch.wait(60) == 0
    assert [event["step"] for event in place.events("checkpoint")] == [7, 14, 21, 28, 35, 42, 49, 56, 60]
