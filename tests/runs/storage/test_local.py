"""The folder that keeps runs."""

import os
import stat
from pathlib import Path

import pytest

from distrib.errors import JobError
from distrib.runs.storage.local import LocalStorage


@pytest.fixture
def storage(tmp_path):
    return LocalStorage(tmp_path / "runs")


def test_put_leaves_only_the_object_with_the_users_permissions(storage):
    storage.put("a/b", b"one")
    assert os.listdir(storage.root / "a") == ["b"]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE((storage.root / "a/b").stat().st_mode) == 0o666 & ~umask


def test_a_failed_put_leaves_the_old_content_and_nothing_else(storage):
    storage.put("a/b", b"one")
    with pytest.raises(TypeError):
        storage.put("a/b", None)
    assert storage.get("a/b") == b"one"
    assert os.listdir(storage.root / "a") == ["b"]


def test_list_leaves_out_a_put_that_never_finished(storage):
    storage.put("a", b"")
    (storage.root / ".b.1234.tmp").touch()
    assert storage.list() == ["a"]


def test_check_writable_leaves_an_empty_folder(tmp_path):
    LocalStorage(tmp_path / "a/b").check_writable()
    assert os.listdir(tmp_path / "a/b") == []


@pytest.mark.parametrize("below", ["", "b/c"])
def test_check_writable_refuses_a_file_in_the_way(tmp_path, below):
    (tmp_path / "file").touch()
    with pytest.raises(JobError, match=r"storage: cannot write to .*: Not a directory; choose another") as error:
        LocalStorage(tmp_path / "file" / below).check_writable()
    assert error.value.field == "storage"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.skipif(not Path("/proc/version").exists(), reason="needs a folder that even root cannot write to")
def test_check_writable_refuses_a_folder_that_cannot_be_written():
    with pytest.raises(JobError, match="cannot write to /proc/runs"):
        LocalStorage("/proc/runs").check_writable()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_check_writable_respects_permissions(tmp_path):
    (tmp_path / "closed").mkdir(mode=0o555)
    with pytest.raises(JobError, match="Permission denied"):
        LocalStorage(tmp_path / "closed" / "runs").check_writable()


def test_check_writable_takes_back_the_folders_it_created(tmp_path):
    # The name of the last folder is longer than file systems allow, so only the first can be made.
    with pytest.raises(JobError, match="storage"):
        LocalStorage(tmp_path / "a" / ("x" * 300)).check_writable()
    assert os.listdir(tmp_path) == []
