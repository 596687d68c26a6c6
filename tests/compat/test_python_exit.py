"""Functions registered with `atexit` run before a process ends without the interpreter's teardown."""

import atexit
import subprocess
import sys

import pytest

from distrib.compat.python_exit import run_exit_functions

PROGRAM = """
import atexit, os
from distrib.compat.python_exit import run_exit_functions
atexit.register(print, "ran", flush=True)
assert run_exit_functions()
os._exit(3)
"""


@pytest.mark.relies_on("atexit._run_exitfuncs")
def test_exit_functions_run_once():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (3, "ran\n")


def test_a_python_without_it_ends_as_usual(monkeypatch):
    monkeypatch.delattr(atexit, "_run_exitfuncs")
    assert not run_exit_functions()
