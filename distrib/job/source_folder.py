"""The folder of a Python project that its packages are imported from, as in a src layout."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PROJECT_FILE = "pyproject.toml"
_SRC = "src"


def source_folder(start: Path) -> Path | None:
    """The source folder of the nearest project around a folder, if it is not the project's folder itself.

    It is what pyproject.toml says to setuptools, Hatch or Poetry, or else a folder `src` beside it.

    Args:
        start: Where the search begins; it continues in the folders above.
    """
    project = next((folder for folder in (start, *start.parents) if (folder / PROJECT_FILE).is_file()), None)
    if project is None:
        return None
    for name in (*_configured(project / PROJECT_FILE), _SRC):
        folder = (project / name).resolve()
        if folder.is_dir() and folder != project.resolve():
            return folder
    return None


def _configured(file: Path) -> Iterator[str]:
    """The source folders that a pyproject.toml names; none if it cannot be read."""
    try:
        tool = tomllib.loads(file.read_text(encoding="utf-8")).get("tool", {})
    except (OSError, ValueError):
        return
    yield from _texts(_at(tool, "setuptools", "packages", "find", "where"))
    yield from _texts(_at(tool, "setuptools", "package-dir", ""))
    for package in _list(_at(tool, "hatch", "build", "targets", "wheel", "packages")):
        yield str(Path(str(package)).parent)
    for package in _list(_at(tool, "poetry", "packages")):
        yield from _texts(_at(package, "from"))


def _at(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _texts(value: Any) -> list[str]:
    return [text for text in (value if isinstance(value, list) else [value]) if isinstance(text, str)]
