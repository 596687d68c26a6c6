"""Labs of real namespaces; tests are skipped with a reason on machines that cannot run them."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from cluster.lab import Lab, LabError
from cluster.lab.machine import find_obstacle

ROOT = Path(__file__).parents[2]


class Labs:
    """Makes labs with names and a folder that nobody else has."""

    def __init__(self, folder):
        self.folder = folder
        self._made = []

    def name(self, suffix):
        """A free name; whatever is started under it is taken down at the end."""
        self._made.append(f"t{os.getpid()}{suffix}")
        return self._made[-1]

    def up(self, suffix, hosts, **options):
        return Lab.up(hosts, name=self.name(suffix), folder=self.folder, **options)

    def close(self):
        for name in self._made:
            Lab(name, self.folder).down()


@pytest.fixture(scope="session")
def _able_machine():
    """Skips where the machine cannot carry a lab."""
    reason = find_obstacle()
    if reason is None:
        with tempfile.TemporaryDirectory(prefix="lab") as folder:
            try:
                Lab.up(1, has_ray=False, name=f"t{os.getpid()}", folder=folder).down()
            except LabError as error:
                if "does not allow" not in str(error):
                    raise
                reason = str(error)
    if reason is not None:
        pytest.skip(reason)


@pytest.fixture(scope="module")
def labs(_able_machine):
    """Makes labs that last for a module at most."""
    with tempfile.TemporaryDirectory(prefix="lab") as folder:
        made = Labs(Path(folder))
        yield made
        made.close()


@pytest.fixture(scope="module")
def links(labs):
    """Three hosts without Ray."""
    return labs.up("n", 3, has_ray=False)


@pytest.fixture(scope="module")
def lab(labs):
    """Three hosts with Ray, each with 2 CPUs and a pretend GPU."""
    return labs.up("r", 3, gpus=1)


@pytest.fixture(scope="session")
def two_hosts(_able_machine):
    """Two hosts with Ray, the head one of them, for the files of tests that submit jobs."""
    with tempfile.TemporaryDirectory(prefix="lab") as folder:
        made = Labs(Path(folder))
        yield made.up("s", 2, cpus=4)
        made.close()


@pytest.fixture
def command():
    """Runs `python -m cluster.lab …` to its end."""

    def run(*arguments, timeout=60):
        return subprocess.run(
            [sys.executable, "-m", "cluster.lab", *map(str, arguments)],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run
