"""The free checks before a run."""

import subprocess
import sys

import pytest

from distrib.doctor.preflight import check_this_machine
from distrib.errors import LaunchError
from distrib.job.reader import Job


@pytest.fixture
def job():
    return Job.load("jobs/digits.yaml")


def test_variables_of_another_launcher_are_a_warning(job, monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    warnings = [finding for finding in check_this_machine(job) if finding.name == "environment"]
    assert [finding.status for finding in warnings] == ["warning"]
    assert "LOCAL_WORLD_SIZE" in warnings[0].message


def test_what_would_fail_is_refused_with_the_way_out(job, monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "nosuch0")
    with pytest.raises(LaunchError, match=r"nosuch0.*unset GLOO_SOCKET_IFNAME"):
        check_this_machine(job)


def test_it_imports_neither_torch_nor_ray():
    program = (
        "import sys; from distrib.job.reader import Job; from distrib.doctor.preflight import check_this_machine;"
        "check_this_machine(Job.load('jobs/digits.yaml')); print({'torch', 'ray'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "set()\n"
