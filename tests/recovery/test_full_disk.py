"""A disk that is full, or a folder that nobody may write to, in the middle of a run."""

import contextlib
import os
import subprocess
import time

import pytest

from tests.support.recovery_runs import Place, assert_same, job

pytestmark = pytest.mark.timeout(120)

STEPS = 52
SPEC = job(train={"steps": STEPS}, model={"target": "recovery_jobs:Fragile", "args": {"seconds": 0.05}})


DISK_BYTES = 104 * 2**20
"""More than the least on which a run is started."""


@pytest.fixture
def small_disk(tmp_path):
    """Makes a disk of a few MB in a folder, where root is allowed to."""
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
    launch = place.start()
    launch.wait_until(lambda: place.committed() and place.committed()[-1] == 7)
    filler = fill(place.folder / "runs")
    kept = place.committed()
    time.sleep(1)
    assert place.committed() == kept
    filler.unlink()
    assert launch.wait(60) == 0, launch.output
    assert "No space left on device; free some space there" in place.warnings()[0]
    assert_same(place, reference, 2, STEPS)


def test_a_disk_that_stays_full_fails_the_run(make_place, small_disk):
    place = make_place("full", SPEC)
    small_disk(place.folder / "runs", DISK_BYTES)
    launch = place.start()
    launch.wait_until(lambda: place.committed())
    filler = fill(place.folder / "runs")
    kept = place.committed()
    launch.wait_until(lambda: place.warnings())
    fill(place.folder / "runs")  # again: what was cut off has been removed
    assert launch.wait(60) == 1
    assert "not kept: cannot write " in launch.output
    assert "No space left on device; free some space there" in launch.output
    assert "Traceback" not in launch.output
    assert place.committed() == kept
    assert not place.layout.weights_file.exists()
    filler.unlink()
    place.finish()
    assert place.run.status == "finished"


def test_a_folder_that_nobody_may_write_to_for_a_while(make_place, reference):
    place = make_place("closed", SPEC)
    launch = place.start()
    launch.wait_until(lambda: place.committed())
    with immutable(place.layout.checkpoints):
        launch.wait_until(lambda: place.warnings())
    assert launch.wait(60) == 0, launch.output
    assert "Operation not permitted; give back the right to write there" in place.warnings()[0]
    assert_same(place, reference, 2, STEPS)
