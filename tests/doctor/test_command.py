"""`distrib doctor` as a user runs it."""

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.timeout(120)


def doctor(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "distrib", "doctor", *arguments],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_this_machine_with_a_job(tmp_path):
    done = doctor("jobs/digits.yaml", "--runs-dir", str(tmp_path), "--json")
    assert done.returncode == 0, done.stderr
    checks = json.loads(done.stdout)["checks"]
    assert {"versions", "room", "clock", "storage", "all-reduce", "job"} <= {check["name"] for check in checks}
    assert all(check["status"] in ("ok", "warning") for check in checks)
    assert set(checks[0]) == {"name", "status", "hosts", "message", "fix"}


def test_a_failed_check_shows_its_fix_and_exits_with_3():
    done = doctor(GLOO_SOCKET_IFNAME="nosuch0")
    assert done.returncode == 3
    line, fix = next(line for line in done.stdout.splitlines() if "nosuch0" in line), done.stdout
    assert line.startswith("failed")
    assert "fix: unset GLOO_SOCKET_IFNAME" in fix


def test_a_job_that_does_not_exist():
    done = doctor("nosuch.yaml")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_a_cluster_that_does_not_answer():
    done = doctor("--address", "127.0.0.1:1")
    assert done.returncode == 3
    assert done.stderr.count("\n") == 1
