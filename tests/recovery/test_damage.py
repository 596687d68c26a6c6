"""Damaged checkpoints: never taken up, always named, and the run ends as if nothing had happened."""

import hashlib
import json
import pickle

import pytest

from tests.support.recovery_runs import Place, assert_same, job

pytestmark = pytest.mark.timeout(120)

STEPS = 100
FILES = [".metadata", "__0_0.distcp", "__1_0.distcp", "state.json", "manifest.json"]
SPEC = job(train={"steps": STEPS}, checkpoint={"keep": 10})


@pytest.fixture(scope="module")
def reference(command_server, tmp_path_factory):
    place = Place(command_server, tmp_path_factory.mktemp("damage") / "reference", SPEC)
    place.start()
    yield place
    place.close()


@pytest.fixture(scope="module")
def stopped(command_server, tmp_path_factory):
    """A run with checkpoints of at least the steps 7, 14, …, 49."""
    place = Place(command_server, tmp_path_factory.mktemp("damage") / "stopped", SPEC)
    place.stop_at(49)
    assert len(place.committed()) >= 7
    yield place
    place.close()


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def remove(path):
    path.unlink()


def agree(folder):
    """Rewrites the manifest and COMMITTED so that they fit the files as they are now."""
    manifest = json.loads((folder / "manifest.json").read_text())
    for name in manifest["files"]:
        data = (folder / name).read_bytes()
        manifest["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    write_manifest(folder, json.dumps(manifest))


def write_manifest(folder, text):
    (folder / "manifest.json").write_text(text)
    (folder / "COMMITTED").write_text(hashlib.sha256(text.encode()).hexdigest())


class Bomb:
    """A pickle that creates a file when it is read."""

    def __init__(self, path):
        self._path = path

    def __reduce__(self):
        return open, (str(self._path), "w")


def assert_passed_over(place, damaged, step):
    """The warnings name the damaged files, in order, and say where training went on."""
    *warnings, last = place.warnings()
    assert len(warnings) == len(damaged)
    for warning, name in zip(warnings, damaged, strict=True):
        assert name in warning
    assert last == f"training continues from step {step}"
    for name in damaged:
        folder = place.layout.checkpoints / f"damaged-{name.split('/')[0]}"
        assert folder.is_dir()
    (start,) = [event for event in place.events("start") if event["attempt"] == 1]
    assert start["step"] == step


@pytest.mark.parametrize("damage", [truncate, flip_a_bit, remove])
def test_each_file(make_place, reference, stopped, damage):
    place = make_place("damaged", like=stopped)
    damaged = []
    for number, name in enumerate(FILES, start=1):
        folder = place.checkpoint(-number)
        damage(folder / name)
        damaged.append(f"{folder.name}/{name}" if damage is not remove or name != "manifest.json" else folder.name)
    step = place.committed()[-1 - len(FILES)]
    place.finish()
    assert_passed_over(place, damaged, step)
    assert_same(place, reference, 2, STEPS)


@pytest.mark.parametrize("damage", [truncate, flip_a_bit])
def test_the_mark_of_commitment(make_place, reference, stopped, damage):
    place = make_place("damaged", like=stopped)
    folder, step = place.checkpoint(), place.committed()[-2]
    damage(folder / "COMMITTED")
    place.finish()
    assert_passed_over(place, [f"{folder.name}/manifest.json does not match COMMITTED"], step)
    assert_same(place, reference, 2, STEPS)


def test_without_the_mark_it_is_a_save_that_never_ended(make_place, reference, stopped):
    place = make_place("damaged", like=stopped)
    folder, step = place.checkpoint(), place.committed()[-2]
    (folder / "COMMITTED").unlink()
    launch = place.finish()
    assert f"from step {step} of {STEPS}" in launch.output
    assert place.warnings() == []
    assert_same(place, reference, 2, STEPS)


def test_what_only_parsing_can_find(make_place, reference, stopped, tmp_path):
    place = make_place("damaged", like=stopped)
    folders = [place.checkpoint(-number) for number in range(1, 7)]
    step = place.committed()[-7]
    crater = tmp_path / "crater"
    (folders[0] / "state.json").write_text("{")
    agree(folders[0])
    (folders[1] / ".metadata").write_bytes(pickle.dumps(Bomb(crater)))
    agree(folders[1])
    write_manifest(folders[2], "no JSON")
    write_manifest(folders[3], "[1]")
    (folders[4] / "state.json").write_bytes((folders[5] / "state.json").read_bytes())
    agree(folders[4])
    (folders[5] / ".metadata").write_bytes((folders[5] / ".metadata").read_bytes()[:100])
    agree(folders[5])
    names = ["state.json", ".metadata", "manifest.json", "manifest.json", "state.json", ".metadata"]
    place.finish()
    assert_passed_over(place, [f"{folder.name}/{name}" for folder, name in zip(folders, names, strict=True)], step)
    assert "names _io.open" in place.warnings()[1] or "names io.open" in place.warnings()[1]
    assert not crater.exists()
    assert_same(place, reference, 2, STEPS)


def test_all_of_them(make_place, reference, stopped):
    place = make_place("damaged", like=stopped)
    count = len(place.committed())
    for number in range(1, count + 1):
        truncate(place.checkpoint(-number) / "state.json")
    place.finish()
    *warnings, last = place.warnings()
    assert len(warnings) == count
    assert last == "training starts from the beginning: no checkpoint is left"
    assert_same(place, reference, 2, STEPS)


def test_damaged_ones_are_not_kept_in_place_of_good_ones(make_place, reference, stopped):
    place = make_place("damaged", like=stopped)
    for number in range(1, 5):
        flip_a_bit(place.checkpoint(-number) / "__0_0.distcp")
    step = place.committed()[-5]
    place.write(job(train={"steps": STEPS}, checkpoint={"keep": 1}))
    place.plan([{"moment": "commit", "rank": 0, "nth": 2, "victim": "launcher"}])
    launch = place.start()
    assert launch.wait(60) < 0
    assert place.committed() == [step + 7]
    place.finish()
    assert_same(place, reference, 2, STEPS)
