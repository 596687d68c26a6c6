"""Runs the suite in an environment and counts how its tests ended."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from tests.versions.environment import REPOSITORY, variables

LEFT_OUT = (
    "tests/bench",  # measures; `make bench`
    "tests/gpu",  # `make test-gpu`
    "tests/lab",  # needs root and network namespaces, and takes minutes
    "tests/observe/report/test_pages.py",  # needs a browser
)


@dataclass(frozen=True)
class SuiteResult:
    """How the tests of one environment ended."""

    passed: int
    skipped: int
    failed: tuple[str, ...]
    minutes: float


def run_suite(python: Path, paths: Sequence[str], testers: int) -> SuiteResult:
    """Runs the tests below `paths`, all but `LEFT_OUT`, and prints what pytest prints.

    Args:
        python: The interpreter of the environment.
        paths: Files or folders of tests.
        testers: The number of processes.
    """
    left_out = [f"--ignore={path}" for path in LEFT_OUT]
    side_by_side = ["-n", str(testers), "--dist", "loadgroup", "--no-loadscope-reorder"] if testers > 1 else []
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        pytest = [str(python), "-m", "pytest", "-q", *side_by_side, *left_out, f"--junitxml={report}", *paths]
        subprocess.run(pytest, cwd=REPOSITORY, env=variables(python), stdin=subprocess.DEVNULL, check=False)
        return count(report, (time.monotonic() - started) / 60)


def count(report: Path, minutes: float) -> SuiteResult:
    if not report.exists():
        return SuiteResult(0, 0, ("pytest did not start",), minutes)
    cases = list(ElementTree.parse(report).iter("testcase"))
    failed = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skipped = [case for case in cases if case.find("skipped") is not None]
    names = tuple(f"{case.get('classname')}::{case.get('name')}" for case in failed)
    return SuiteResult(len(cases) - len(failed) - len(skipped), len(skipped), names, minutes)
