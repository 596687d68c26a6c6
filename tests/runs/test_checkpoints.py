"""Checkpoint folders: what commits them, what damage is found, which are kept."""

import hashlib
import json
import os
import re

import pytest

from distrib.runs.checkpoints import (
    CheckpointFolder,
    DamagedError,
    describe_file,
)
from distrib.runs.files.atomic import atomic_write
from distrib.runs.storage.folder.checkpoints import FolderCheckpoints


def make(checkpoints, step, attempt=0, *, num_parts=2, is_committed=True):
    """A checkpoint with a file of each rank."""
    folder = CheckpointFolder.at(checkpoints, step, attempt)
    folder.path.mkdir(parents=True)
    folder.state_file.write_text("{}")
    for rank in range(num_parts):
        (folder.path / f"file-{rank}").write_bytes(bytes(10 + rank))
        folder.write_part(rank, [f"file-{rank}"])
    if is_committed:
        folder.commit(num_parts)
    return folder


@pytest.fixture
def folder(tmp_path):
    return make(tmp_path, 7)


def names(checkpoints):
    return sorted(path.name for path in checkpoints.iterdir())


def verify(folder):
    files = folder.files()
    folder.verify(files, files)


def test_a_commit_takes_all_parts_into_the_manifest(folder):
    assert names(folder.path) == ["COMMITTED", "file-0", "file-1", "manifest.json", "state.json"]
    manifest = (folder.path / "manifest.json").read_bytes()
    assert (folder.path / "COMMITTED").read_text() == hashlib.sha256(manifest).hexdigest()
    assert json.loads(manifest)["files"] == {
        name: {"bytes": size, "sha256": hashlib.sha256(data).hexdigest()}
        for name, size, data in [("state.json", 2, b"{}"), ("file-0", 10, bytes(10)), ("file-1", 11, bytes(11))]
    }
    assert folder.is_committed()
    verify(folder)


def test_without_a_part_there_is_no_commit(tmp_path):
    folder = make(tmp_path, 7, num_parts=1, is_committed=False)
    with pytest.raises(FileNotFoundError):
        folder.commit(2)
    assert not folder.is_committed()
    assert FolderCheckpoints(tmp_path).list() == []


def test_a_rank_may_have_written_nothing(tmp_path):
    folder = make(tmp_path, 7, is_committed=False)
    folder.write_part(1, [])
    folder.commit(2)
    assert set(folder.files()) == {"state.json", "file-0"}


def test_the_mark_is_written_last_of_all_but_parts(tmp_path, monkeypatch):
    written = []
    replace = os.replace
    monkeypatch.setattr("pathlib.Path.replace", lambda self, to: (written.append(to.name), replace(self, to)))
    make(tmp_path, 7)
    assert written == ["part-0.json", "part-1.json", "manifest.json", "COMMITTED"]


@pytest.mark.parametrize("name", ["state.json", "file-0", "file-1"])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "its size differs from the manifest"),
        (lambda path: path.write_bytes(b"x" * path.stat().st_size), "its checksum differs from the manifest"),
        (lambda path: path.unlink(), "is missing"),
    ],
)
def test_damage_to_a_file_is_named(folder, name, damage, message):
    damage(folder.path / name)
    with pytest.raises(DamagedError, match=rf"step-00000007-a0/{re.escape(name)}: .*{message}"):
        verify(folder)


@pytest.mark.parametrize("name", ["COMMITTED", "manifest.json"])
@pytest.mark.parametrize("data", [b"", b"\xff\xfe", b"0" * 64, None])
def test_damage_to_the_manifest_or_the_mark(folder, name, data):
    if data is None:
        (folder.path / name).unlink()
    else:
        (folder.path / name).write_bytes(data)
    with pytest.raises(DamagedError, match=f"{name} is missing" if data is None else "manifest.json does not match"):
        folder.files()


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"files": 3}', '{"no": "files"}'])
def test_a_manifest_that_is_none(folder, text):
    (folder.path / "manifest.json").write_text(text)
    (folder.path / "COMMITTED").write_text(hashlib.sha256(text.encode()).hexdigest())
    with pytest.raises(DamagedError, match=r"step-00000007-a0/manifest\.json: "):
        folder.files()


@pytest.mark.parametrize("entry", [None, 3, "x", [], {}, {"bytes": 10}])
def test_a_manifest_with_an_entry_that_is_none(folder, entry):
    with pytest.raises(DamagedError, match="file-0: its"):
        folder.verify(["file-0"], {"file-0": entry})


def test_the_newest_is_first_by_step_and_then_by_attempt(tmp_path):
    for step, attempt in [(7, 0), (14, 10), (14, 9), (100000000, 0), (14, 0)]:
        make(tmp_path, step, attempt)
    make(tmp_path, 200000000, is_committed=False)
    (tmp_path / "step-00000021-a0.old").mkdir()
    (tmp_path / "damaged-step-00000028-a0").mkdir()
    found = FolderCheckpoints(tmp_path).list()
    assert [(folder.step, folder.attempt) for folder in found] == [(100000000, 0), (14, 10), (14, 9), (14, 0), (7, 0)]
    assert [folder.path.name for folder in found[:2]] == ["step-100000000-a0", "step-00000014-a10"]


def test_there_need_be_no_folder(tmp_path):
    assert FolderCheckpoints(tmp_path / "none").list() == []
    FolderCheckpoints(tmp_path / "none").remove_uncommitted()
    FolderCheckpoints(tmp_path / "none").keep_newest(1)


def test_old_ones_are_removed_and_others_left(tmp_path):
    for step in (7, 14, 21):
        make(tmp_path, step)
    make(tmp_path, 28, is_committed=False)
    FolderCheckpoints(tmp_path).keep_newest(2)
    assert names(tmp_path) == ["step-00000014-a0", "step-00000021-a0", "step-00000028-a0"]
    FolderCheckpoints(tmp_path).keep_newest(0)
    assert names(tmp_path) == ["step-00000021-a0", "step-00000028-a0"]
    FolderCheckpoints(tmp_path).remove_uncommitted()
    assert names(tmp_path) == ["step-00000021-a0"]


def test_a_damaged_one_is_set_aside_as_it_is(folder, tmp_path):
    before = names(folder.path)
    FolderCheckpoints(tmp_path).set_aside(folder, "why")
    assert names(tmp_path) == ["damaged-step-00000007-a0"]
    assert names(tmp_path / "damaged-step-00000007-a0") == before
    assert FolderCheckpoints(tmp_path).list() == []


def test_the_mark_goes_first(folder, monkeypatch):
    monkeypatch.setattr("shutil.rmtree", lambda *_, **__: None)
    folder.remove()
    assert not folder.is_committed()
    assert (folder.path / "manifest.json").exists()


def test_a_durable_file_is_flushed_before_it_has_its_name(tmp_path, monkeypatch):
    order = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr("os.fsync", lambda file: (order.append("fsync"), fsync(file)))
    monkeypatch.setattr("pathlib.Path.replace", lambda self, to: (order.append("replace"), replace(self, to)))
    atomic_write(tmp_path / "file", "text")
    assert order == ["fsync", "replace", "fsync"]
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("size", [0, 1, 2**22, 2**22 + 1])
def test_a_file_is_described(tmp_path, size):
    data = os.urandom(size)
    (tmp_path / "file").write_bytes(data)
    assert describe_file(tmp_path / "file") == {"bytes": size, "sha256": hashlib.sha256(data).hexdigest()}
