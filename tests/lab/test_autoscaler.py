"""A cluster whose autoscaler brings hosts when a job needs them."""

import json
import os
import re
import sys
import time
from pathlib import Path

import pytest

from tests.support.lab_runs import Project
from tests.support.recovery_runs import REPOSITORY

pytestmark = [pytest.mark.ray, pytest.mark.long, pytest.mark.timeout(300)]

CLUSTER = """
import sys, time
from ray.cluster_utils import AutoscalingCluster

cluster = AutoscalingCluster(
    head_resources={"CPU": 0},
    worker_node_types={"cpu": {"resources": {"CPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": 2}},
    idle_timeout_minutes=5,
)
cluster.start()
print("ready", flush=True)
time.sleep(600)
"""


def test_hosts_come_for_the_fewest_workers_and_then_for_more(labs, tmp_path):
    lab = labs.up("a", 1, has_ray=False, names="address")
    Path("/tmp/ray").mkdir(exist_ok=True)
    lab.hide("host1", "/tmp/ray")
    (tmp_path / "cluster.py").write_text(CLUSTER)
    path = os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(REPOSITORY), "RAY_AUTH_MODE": "disabled"}
    log = (tmp_path / "cluster.log").open("w")
    cluster = lab.popen(
        "host1", [sys.executable, "cluster.py"], folder=tmp_path, environment=environment, stdout=log, stderr=log
    )
    project = Project(None, tmp_path / "project", workers={"min": 1, "max": 2})
    project.pace(0.3)
    try:
        deadline = time.monotonic() + 60
        while "ready" not in (tmp_path / "cluster.log").read_text():
            assert time.monotonic() < deadline, (tmp_path / "cluster.log").read_text()
            time.sleep(0.2)
        command = [sys.executable, "-m", "distrib", "run", "job.yaml", "--address", "127.0.0.1:6379"]
        output = (tmp_path / "output").open("w")
        run = lab.popen(
            *("host1", [*command, "--runs-dir", str(project.runs), "--run-id", "run"]),
            folder=project.code,
            environment=environment,
            stdout=output,
            stderr=output,
        )
        deadline = time.monotonic() + 150
        while not project.events("resize"):
            assert run.poll() is None, (tmp_path / "output").read_text()
            assert time.monotonic() < deadline, (tmp_path / "output").read_text()
            time.sleep(0.2)
        project.pace(0)
        assert run.wait(100) == 0, (tmp_path / "output").read_text()
    finally:
        cluster.kill()
        project.close()
    (resize,) = project.events("resize")
    assert re.search("room for 2 workers", json.dumps(resize))
