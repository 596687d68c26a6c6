"""The doctor on a cluster finds the host that is slow and the one that does not see the storage."""

import json
import sys

import pytest

from tests.support.recovery_runs import REPOSITORY

pytestmark = [pytest.mark.ray, pytest.mark.timeout(240)]

SLOW = ["tc", "qdisc", "add", "dev", "eth0", "root", "tbf", "rate", "20mbit", "burst", "256kb", "latency", "50ms"]


def test_a_slow_host_and_storage_that_one_host_does_not_share(labs, tmp_path):
    runs = tmp_path / "runs"
    runs.mkdir()
    lab = labs.up("d", 3, hidden=[("host2", str(runs))])
    assert lab.exec("host3", SLOW).returncode == 0
    head = f"{lab.host_address('host1')}:6379"
    command = [sys.executable, "-m", "distrib", "doctor", "jobs/digits.yaml", "--runs-dir", str(runs), "--json"]
    done = lab.exec("host1", [*command, "--address", head], folder=REPOSITORY)
    assert done.returncode == 3, done.stderr
    found = {(check["name"], check["status"]): check for check in json.loads(done.stdout)["checks"]}
    assert found["hosts", "ok"]["message"].startswith("3 hosts")
    assert found["network", "ok"]["message"] == "6 connections between 3 hosts"
    assert [host.split()[0] for host in found["all-reduce", "warning"]["hosts"]] == ["host3"]
    assert {host.split()[0] for host in found["storage", "failed"]["hosts"]} == {"host1", "host2"}
