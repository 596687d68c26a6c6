"""Temporary folders whose sockets have paths that are short enough."""

import os
import tempfile

from distrib.train.process.lifetime import short_temporary_folders


def test_a_long_temporary_folder_is_replaced_for_a_while(tmp_path, monkeypatch):
    long = tmp_path / ("x" * 90)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with short_temporary_folders(70):
        folder = tempfile.mkdtemp(prefix="short-")
    os.rmdir(folder)
    assert folder.startswith("/tmp/short-")
    assert tempfile.gettempdir() == str(long)


def test_a_short_temporary_folder_stays(monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/var/tmp")
    with short_temporary_folders(70):
        assert tempfile.gettempdir() == "/var/tmp"
