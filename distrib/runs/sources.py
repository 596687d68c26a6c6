"""Checksums of the user's source code, to detect that a run is resumed with changed code."""

from __future__ import annotations

import contextlib
import hashlib
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

_OWN_PACKAGE = __package__.partition(".")[0]
_INSTALLED = ("site-packages", "dist-packages")


def hash_sources(folders: Iterable[Path]) -> dict[str, str]:
    """SHA-256 by name of the modules that this process has imported from the folders, without installed packages.

    Args:
        folders: Where a job's modules are: its own folder and the working directory.
    """
    roots = [folder.resolve() for folder in folders]
    found = {}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if name in ("__main__", "__mp_main__") or name.partition(".")[0] == _OWN_PACKAGE or not isinstance(file, str):
            continue
        if any(folder in file for folder in _INSTALLED):
            continue
        path = Path(file).resolve()
        if any(path.is_relative_to(root) for root in roots) and not set(_INSTALLED) & set(path.parts):
            with contextlib.suppress(OSError):
                found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return dict(sorted(found.items()))


def changed_sources(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """The modules in both whose source code differs."""
    return [name for name, digest in now.items() if before.get(name, digest) != digest]
