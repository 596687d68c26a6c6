"""Whose source code counts, and what has changed."""

import importlib
import sys

import pytest

from distrib.runs.sources import changed_sources, hash_sources


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """Imports modules from files in a folder of the user's and one of installed packages."""
    installed = tmp_path / "venv" / "site-packages"
    installed.mkdir(parents=True)
    for folder, name in ((tmp_path, "own_module_of_test"), (installed, "installed_module_of_test")):
        (folder / f"{name}.py").write_text("value = 1")
        monkeypatch.syspath_prepend(folder)
        importlib.import_module(name)
    yield tmp_path
    for name in ("own_module_of_test", "installed_module_of_test"):
        sys.modules.pop(name)


def test_the_modules_of_the_folder_and_no_others(modules):
    assert list(hash_sources([modules])) == ["own_module_of_test"]


def test_a_changed_file_is_found_and_new_modules_are_none(modules):
    before = hash_sources([modules])
    (modules / "own_module_of_test.py").write_text("value = 2")
    now = hash_sources([modules])
    assert changed_sources(before, now) == ["own_module_of_test"]
    assert changed_sources({}, now) == changed_sources(now, {}) == changed_sources(now, now) == []
