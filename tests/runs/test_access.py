"""Run folders are their owner's alone, unless a group is named."""

import grp
import os
import stat

import pytest

from distrib.errors import JobError
from distrib.runs.access import ACCESS_VARIABLE, make_run_folder


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(autouse=True)
def open_umask(monkeypatch):
    """The widest umask, which must not matter."""
    monkeypatch.delenv(ACCESS_VARIABLE, raising=False)
    before = os.umask(0)
    yield
    os.umask(before)


def test_private_by_default_and_an_existing_folder_is_left_alone(tmp_path):
    make_run_folder(tmp_path / "runs" / "a")
    assert mode(tmp_path / "runs" / "a") == 0o700
    (tmp_path / "b").mkdir(mode=0o755)
    make_run_folder(tmp_path / "b")
    assert mode(tmp_path / "b") == 0o755


def test_a_group_may_read_and_its_files_inherit_it(tmp_path, monkeypatch):
    if os.geteuid() != 0:
        pytest.skip("only root may give a folder to any group")
    group = next(entry for entry in grp.getgrall() if entry.gr_gid != os.getegid())
    monkeypatch.setenv(ACCESS_VARIABLE, f"group:{group.gr_name}")
    make_run_folder(tmp_path / "a")
    assert mode(tmp_path / "a") == 0o2750
    (tmp_path / "a" / "logs").mkdir()
    (tmp_path / "a" / "logs" / "rank-0.log").touch()
    assert (tmp_path / "a" / "logs" / "rank-0.log").stat().st_gid == group.gr_gid


def test_the_folders_own_group_is_that_of_the_folder_above(tmp_path, monkeypatch):
    monkeypatch.setenv(ACCESS_VARIABLE, "group")
    make_run_folder(tmp_path / "a")
    assert mode(tmp_path / "a") == 0o2750
    assert (tmp_path / "a").stat().st_gid == tmp_path.stat().st_gid


@pytest.mark.parametrize("value", ["all", "private:staff", "group:no-such-group"])
def test_what_is_wrong_is_refused_and_nothing_is_left(tmp_path, monkeypatch, value):
    monkeypatch.setenv(ACCESS_VARIABLE, value)
    with pytest.raises(JobError, match=ACCESS_VARIABLE):
        make_run_folder(tmp_path / "a")
    assert not (tmp_path / "a").exists()
