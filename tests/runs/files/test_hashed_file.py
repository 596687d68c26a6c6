"""A file has the bytes that were written, in pieces of any size; a full disk is reported as such."""

import hashlib
import os
import subprocess

import pytest

from distrib.runs.files import hashed_file
from distrib.runs.files.hashed_file import HashedFile

BUFFER = hashed_file._BUFFER_BYTES


@pytest.mark.parametrize("sizes", [[], [1], [4095, 4097], [BUFFER], [BUFFER - 1, 2, 3 * BUFFER + 5], [3 * BUFFER]])
def test_pieces_of_any_size(tmp_path, sizes):
    pieces = [os.urandom(size) for size in sizes]
    with HashedFile(tmp_path / "file") as file:
        for piece in pieces:
            assert file.write(piece) == len(piece)
        assert file.tell() == sum(sizes)
    data = (tmp_path / "file").read_bytes()
    assert data == b"".join(pieces)
    assert file.description == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def test_a_longer_file_before_is_replaced(tmp_path):
    (tmp_path / "file").write_bytes(b"longer")
    with HashedFile(tmp_path / "file") as file:
        file.write(memoryview(bytearray(b"new")))
    assert (tmp_path / "file").read_bytes() == b"new"


def test_where_there_are_no_direct_writes(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "O_DIRECT")
    test_pieces_of_any_size(tmp_path, [BUFFER + 1, BUFFER])


def test_a_full_disk(tmp_path):
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", tmp_path]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    try:
        file = HashedFile(tmp_path / "file")
        with pytest.raises(OSError, match="No space left"), file:
            file.write(bytes(3 * BUFFER))
    finally:
        subprocess.run(["umount", tmp_path], check=True)
