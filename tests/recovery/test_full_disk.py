"""A disk that is full, or a folder that nobody may write to, in the middle of a run."""

import contextlib
import os
import subprocess

import pytest

from tests.support.recovery_runs import EVERY, Place, assert_same, job

pytestmark = pytest.mark.timeout(120)

STEPS = 52
SPEC = job(train={"steps": STEPS}, callbacks=["recovery_jobs:Gates"])
BEFORE, MEANWHILE = 16, 37
"""Steps between which a disk is full: the checkpoints of steps 21 and 28 begin and end meanwhile."""

DISK_BYTES = 128 * 2**20
"""Well above the least on which a run is started."""


@pytest.fixture
def small_disk(tmp_path):
    """Makes a small disk in a folder, where root is allowed to."""
    folders = []

    def mount(folder, size_bytes):
        folder.mkdir(parents=True)
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", folder], capture_output=True, check=False
        )
        if done.returncode != 0:
            pytest.skip("needs the right to mount")
        folders.append(folder)

    yield mount
    for folder in folders:
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(folder):
    """Fills the disk to its last byte; gives the file to remove again."""
    filler = folder / "filler"
    room = os.statvfs(folder)
    with filler.open("ab", buffering=0) as file:
        if (num_bytes := room.f_bavail * room.f_frsize - 2**20) > 0:
            with contextlib.suppress(OSError):  # of a run that writes at the same time
                os.posix_fallocate(file.fileno(), file.tell(), num_bytes)
        for size in (2**16, 2**12, 1):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)) == size:
                    pass
    return filler


@contextlib.contextmanager
def immutable(folder):
    """Keeps even root from changing what is in a folder."""
    done = subprocess.run(["chattr", "+i", folder], capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip("needs chattr")
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", folder], check=True)


@pytest.fixture(scope="module")
def reference(command_server, tmp_path_factory):
    place = Place(command_server, tmp_path_factory.mktemp("disk") / "reference", SPEC)
    place.start()
    yield place
    place.close()


def test_a_disk_that_is_full_for_a_while(make_place, small_disk, reference):
    """Nothing is lost: neither a checkpoint that was there, nor an event or a sample of the time meanwhile."""
    place = make_place("full", SPEC)
    small_disk(place.folder / "runs", DISK_BYTES)
    place.close_gates(BEFORE, MEANWHILE)
    launch = place.start()
    place.wait_at_gate(launch, BEFORE)
    filler = fill(place.folder / "runs")
    place.open_gate(BEFORE)
    place.wait_at_gate(launch, MEANWHILE)
    assert_only_earlier_ones_are_committed(place)
    filler.unlink()
    place.open_gate(MEANWHILE)
    assert launch.wait(60) == 0, launch.output
    assert any("No space left on device; free some space there" in warning for warning in place.warnings())
    assert_same(place, reference, 2, STEPS)


def test_a_disk_that_stays_full_fails_the_run(make_place, small_disk, reference):
    place = make_place("full", SPEC)
    small_disk(place.folder / "runs", DISK_BYTES)
    place.close_gates(BEFORE, "end")
    launch = place.start()
    place.wait_at_gate(launch, BEFORE)
    fill(place.folder / "runs")
    place.open_gate(BEFORE)
    place.wait_at_gate(launch, "end")
    filler = fill(place.folder / "runs")  # again: what was cut off has been removed
    place.open_gate("end")
    assert launch.wait(60) == 1, launch.output
    assert "weights were not kept: cannot write " in launch.output  # the final or the best ones
    assert "No space left on device; free some space there" in launch.output
    assert "Traceback" not in launch.output
    assert_only_earlier_ones_are_committed(place)
    assert not place.layout.weights_file.exists()
    filler.unlink()
    place.finish()
    assert place.run.status == "finished"
    assert_same(place, reference, 2, STEPS)


def test_a_folder_that_nobody_may_write_to_for_a_while(make_place, reference):
    place = make_place("closed", SPEC)
    place.close_gates(BEFORE, MEANWHILE)
    launch = place.start()
    place.wait_at_gate(launch, BEFORE)
    with immutable(place.layout.checkpoints):
        place.open_gate(BEFORE)
        place.wait_at_gate(launch, MEANWHILE)
        reason = "Operation not permitted; give back the right to write there"
        assert any(reason in warning for warning in place.warnings())
    place.open_gate(MEANWHILE)
    assert launch.wait(60) == 0, launch.output
    assert_same(place, reference, 2, STEPS)


def assert_only_earlier_ones_are_committed(place):
    """The checkpoints that were there stand, and none that was begun later."""
    assert place.committed()[0] == EVERY
    assert place.committed()[-1] < BEFORE
