"""Ranks that their launcher's death did not end: they harm nothing of those who go on with the run."""

import pytest

from distrib.runs.storage.folder.checkpoints import FolderCheckpoints
from tests.support.recovery_runs import Place, assert_same, is_alive, job, wait_until_dead

pytestmark = pytest.mark.timeout(120)

STEPS = 60
MODEL = {"target": "recovery_jobs:Fragile", "args": {"seconds": 0.01}}
SPEC = job(model=MODEL, train={"steps": STEPS})
MOMENTS = {
    "in a step": {"moment": "update", "rank": 1, "nth": 24},
    "while writing": {"moment": "write", "rank": 1, "nth": 3},
    "just before committing": {"moment": "commit", "rank": 0, "nth": 3},
    "in the last step": {"moment": "update", "rank": 0, "nth": STEPS},
    "while the final weights are written": {"moment": "final", "rank": 0, "nth": 1},
}


@pytest.fixture(scope="module")
def reference(command_server, tmp_path_factory):
    place = Place(command_server, tmp_path_factory.mktemp("survivors") / "reference", SPEC)
    place.start()
    yield place
    place.close()


def train_until_the_launcher_dies(place, moment):
    """Returns the ranks, who are still alive."""
    place.plan([{**MOMENTS[moment], "victim": "outlived"}])
    launch = place.start()
    ranks = launch.wait_until(lambda: len(launch.ranks()) == 2 and launch.ranks())
    assert launch.wait(60) < 0
    assert all(map(is_alive, ranks))
    return ranks


def release(place, survivors):
    (place.folder / "released").touch()
    wait_until_dead(survivors)


@pytest.mark.parametrize("moment", ["in a step", "while writing"])
def test_survivors_beside_the_next_ranks(make_place, reference, moment):
    place = make_place("survived", SPEC)
    survivors = train_until_the_launcher_dies(place, moment)
    num_saves = len(place.events("checkpoint"))
    launch = place.start()
    launch.wait_until(lambda: len(place.events("checkpoint")) > num_saves)
    release(place, survivors)
    assert launch.wait(60) == 0, launch.output
    check_checkpoints(place)
    assert_same(place, reference, 2, STEPS)


@pytest.mark.parametrize("moment", ["just before committing", "while the final weights are written"])
def test_survivors_after_the_end(make_place, reference, moment):
    place = make_place("survived", SPEC)
    survivors = train_until_the_launcher_dies(place, moment)
    place.finish()
    before = weights_and_checkpoints(place)
    release(place, survivors)
    assert weights_and_checkpoints(place) == before
    assert_same(place, reference, 2, STEPS)


def test_weights_of_survivors_are_not_written(make_place):
    """Not even where there are no checkpoints, so that nothing stops them before their end."""
    place = make_place("survived", {**SPEC, "checkpoint": {**SPEC["checkpoint"], "every": "never"}})
    survivors = train_until_the_launcher_dies(place, "in the last step")
    place.finish()
    before = weights_and_checkpoints(place)
    assert {path.name for path in before} > {"model.safetensors", "best.safetensors"}
    release(place, survivors)
    assert weights_and_checkpoints(place) == before


def check_checkpoints(place):
    """All of them are whole and none is the survivors'."""
    for folder in FolderCheckpoints(place.layout.checkpoints).list():
        files = folder.files()
        folder.verify(files, files)
        assert folder.attempt == 1


def weights_and_checkpoints(place):
    """All files of the run but those that survivors may write to."""
    own = ("metrics.jsonl", "samples", "logs")
    return {path: entry for path, entry in place.snapshot().items() if not {*path.parts} & {*own}}
