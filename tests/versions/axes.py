"""The versions that are tried, one axis changed at a time."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from distrib.compat.symbols import PYTHON_VERSIONS, RAY_VERSIONS, TORCH_VERSIONS


@dataclass(frozen=True)
class Versions:
    """Major and minor versions of what one environment has."""

    python: str = "3.11"
    torch: str = "2.13"
    ray: str = "2.60"


def all_axes() -> dict[str, Versions]:
    """The environments by name, such as `torch=2.11`: those of development, then each with one version changed."""
    base = Versions()
    wanted = {"python": PYTHON_VERSIONS, "torch": TORCH_VERSIONS, "ray": RAY_VERSIONS}
    changed = {
        f"{axis}={version}": replace(base, **{axis: version})
        for axis, versions in wanted.items()
        for version in versions
        if version != getattr(base, axis)
    }
    return {"development": base, **changed}


def find_python(version: str) -> str | None:
    """An interpreter of this version, on PATH or among those of pyenv; None if there is none."""
    return next((program for program in _candidates(version) if _is_python(program, version)), None)


def _candidates(version: str) -> Iterator[str]:
    yield from filter(None, [shutil.which(f"python{version}")])
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    yield from (str(path) for path in sorted(root.glob(f"versions/{version}.*/bin/python{version}"), reverse=True))


def _is_python(program: str, version: str) -> bool:
    """Whether a program is that interpreter; a shim of pyenv may be none."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    done = subprocess.run([program, "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip() == version
