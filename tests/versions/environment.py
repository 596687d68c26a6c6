"""A virtual environment in a temporary folder, with the package, what its tests need, and chosen versions."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.versions.axes import Versions, find_python

REPOSITORY = Path(__file__).parents[2]
INSTALLED = """
import json, platform
from importlib.metadata import version
print(json.dumps({"python": platform.python_version(), "torch": version("torch"), "ray": version("ray")}))
"""


class NotAvailableError(Exception):
    """The versions cannot be installed here."""


@contextmanager
def environment(versions: Versions) -> Iterator[Path]:
    """The interpreter of an environment with `versions`, in their newest patch; the environment is removed afterwards.

    Raises:
        NotAvailableError: There is no such interpreter, or pip finds no such packages.
    """
    interpreter = find_python(versions.python)
    if interpreter is None:
        raise NotAvailableError(f"no python{versions.python} on PATH or in pyenv")
    with tempfile.TemporaryDirectory(prefix="distrib-versions-") as folder:
        subprocess.run([interpreter, "-m", "venv", folder], check=True)
        python = Path(folder, "bin", "python")
        wanted = ["-e", ".[dev]", f"torch=={versions.torch}.*", f"ray=={versions.ray}.*"]
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted]
        done = subprocess.run(install, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            raise NotAvailableError(_reason(done.stderr))
        yield python


def installed_versions(python: Path) -> dict[str, str]:
    """The exact versions in the environment of this interpreter, by name."""
    done = subprocess.run([python, "-c", INSTALLED], capture_output=True, text=True, check=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found


def variables(python: Path) -> dict[str, str]:
    """The environment variables of programs that run in the environment of this interpreter."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    return {
        **kept,
        "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
        "VIRTUAL_ENV": str(python.parents[1]),
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def _reason(stderr: str) -> str:
    """The last error of pip."""
    errors = [line.partition("ERROR: ")[2] for line in stderr.splitlines() if line.startswith("ERROR: ")]
    return errors[-1] if errors else "pip failed"
