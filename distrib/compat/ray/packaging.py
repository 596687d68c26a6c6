"""Which files of a working directory Ray ships to a cluster, and how many bytes it takes."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from distrib.compat.symbols import RAY_VERSIONS, PrivateSymbol

_MODULE = "ray._private.runtime_env.packaging"
SYMBOLS = (
    PrivateSymbol(
        f"{_MODULE}.GCS_STORAGE_MAX_SIZE",
        "the limit on a package, to refuse a larger one with the names of its largest files before packing it",
        RAY_VERSIONS,
        "the size is not checked, and Ray refuses the package in its own words",
    ),
    PrivateSymbol(
        f"{_MODULE}._dir_travel, _get_excludes",
        "exactly the files that Ray would ship, by .gitignore, .rayignore and excludes",
        RAY_VERSIONS,
        "the size is not checked, and Ray refuses the package in its own words",
    ),
)
_QUIET = logging.getLogger(__name__)


def max_package_bytes() -> int | None:
    """The size that a package must stay below; None if this Ray does not say."""
    try:
        from ray._private.runtime_env.packaging import GCS_STORAGE_MAX_SIZE
    except ImportError:
        return None
    return int(GCS_STORAGE_MAX_SIZE)


def shipped_sizes(folder: str, excluded: Sequence[str]) -> dict[str, int]:
    """The files that Ray would ship, by path below `folder`, with their sizes in bytes; none if this Ray hides them.

    Args:
        folder: The working directory.
        excluded: What is left out, in the syntax of .gitignore, besides what ignore files name.
    """
    try:
        from ray._private.runtime_env.packaging import _dir_travel, _get_excludes
    except ImportError:
        return {}
    root = Path(folder).absolute()
    sizes: dict[str, int] = {}

    def measure(path: Path) -> None:
        if path.is_file():
            sizes[os.path.relpath(path, root)] = path.stat().st_size

    _dir_travel(root, [_get_excludes(root, list(excluded))], measure, include_gitignore=True, logger=_QUIET)
    return sizes
