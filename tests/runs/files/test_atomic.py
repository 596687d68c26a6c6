"""Atomic writes: all or nothing, with the mode that the user's other files have."""

import os
import stat

import pytest

from distrib.runs.files.atomic import atomic_path, atomic_write, remove_temporary


@pytest.fixture(params=[0o022, 0o077, 0o002])
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_a_writer_that_creates_files_with_a_mode_of_its_own(tmp_path, umask):
    with atomic_path(tmp_path / "a") as temporary:
        temporary.unlink()
        os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o600))  # as safetensors does
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o666 & ~umask


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    atomic_write(tmp_path / "a", "old")

    def fail():
        with atomic_path(tmp_path / "a") as temporary:
            temporary.write_text("half of the ne")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert (tmp_path / "a").read_text() == "old"
    assert os.listdir(tmp_path) == ["a"]


def test_what_killed_writers_left_is_removed(tmp_path):
    pid = os.fork()
    if pid == 0:
        with atomic_path(tmp_path / "a"):
            os._exit(0)
    os.waitpid(pid, 0)
    atomic_write(tmp_path / "b", b"1")
    (tmp_path / ".hidden").touch()
    assert len(os.listdir(tmp_path)) == 3
    remove_temporary(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".hidden", "b"]
