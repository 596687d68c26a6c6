"""What is tried is what the package's metadata admits, and an environment that cannot be had is no failure."""

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from distrib.compat.symbols import PYTHON_VERSIONS, RAY_VERSIONS, TORCH_VERSIONS
from tests.versions import table
from tests.versions.__main__ import passes
from tests.versions.axes import Versions, all_axes, find_python
from tests.versions.suite import count

REPOSITORY = Path(__file__).parents[2]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
REQUIRED = {(r := Requirement(line)).name: r.specifier for line in PROJECT["dependencies"]}


def minor(version, step):
    first, second = version.split(".")
    return f"{first}.{int(second) + step}.0"


@pytest.mark.parametrize(("name", "versions"), [("torch", TORCH_VERSIONS), ("ray", RAY_VERSIONS)])
def test_what_is_required_is_what_is_tried(name, versions):
    assert all(REQUIRED[name].contains(f"{version}.1") for version in versions)
    assert not REQUIRED[name].contains(minor(versions[0], -1))
    assert not REQUIRED[name].contains(minor(versions[-1], 1))


def test_every_minor_version_of_torch_that_is_admitted_is_tried():
    between = [minor(TORCH_VERSIONS[0], step).removesuffix(".0") for step in range(20)]
    assert [version for version in between if REQUIRED["torch"].contains(f"{version}.1")] == list(TORCH_VERSIONS)


def test_the_package_says_on_which_pythons_it_was_tried():
    named = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if "Python :: 3." in line]
    assert tuple(named) == PYTHON_VERSIONS


def test_the_first_environment_is_that_of_development():
    pinned = dict(line.split("==") for line in (REPOSITORY / "constraints.txt").read_text().split())
    base = all_axes()["development"]
    assert (pinned["torch"], pinned["ray"]) == (f"{base.torch}.0", f"{base.ray}.0")


def test_each_other_environment_differs_in_one_version():
    for name, versions in all_axes().items():
        differing = [
            field for field in ("python", "torch", "ray") if getattr(versions, field) != getattr(Versions(), field)
        ]
        assert differing == ([] if name == "development" else [name.partition("=")[0]])


def test_an_interpreter_that_is_not_there():
    assert find_python("3.1") is None


def test_an_environment_that_cannot_be_had_is_a_line_and_no_failure(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(table, "FILE", tmp_path / "build" / "versions.md")
    monkeypatch.setattr("tests.versions.environment.find_python", lambda version: None)
    assert passes("torch=2.11", ["tests"], 1)
    lines = table.FILE.read_text().splitlines()
    assert lines[0].startswith("| changed | Python | torch")
    assert lines[2].startswith("| torch=2.11 | 3.11 | 2.11 | 2.60 | not available: no python3.11 on PATH or in pyenv |")
    assert {line.count("|") for line in lines} == {len(table.COLUMNS) + 1}


REPORT = """<testsuites><testsuite>
<testcase classname="tests.a" name="good"/>
<testcase classname="tests.a" name="bad"><failure/></testcase>
<testcase classname="tests.a" name="broken"><error/></testcase>
<testcase classname="tests.a" name="left out"><skipped/></testcase>
</testsuite></testsuites>"""


def test_the_outcomes_of_a_report(tmp_path):
    (tmp_path / "report.xml").write_text(REPORT)
    result = count(tmp_path / "report.xml", 2.0)
    assert (result.passed, result.skipped, result.failed) == (1, 1, ("tests.a::bad", "tests.a::broken"))
    assert count(tmp_path / "missing.xml", 2.0).failed == ("pytest did not start",)
