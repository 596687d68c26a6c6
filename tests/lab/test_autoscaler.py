"""A cluster whose autoscaler brings hosts when a job needs them."""

import json
import os
import sys
import time
from pathlib import Path

import pytest
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID

from tests.support.lab_runs import Project
from tests.support.recovery_runs import REPOSITORY

pytestmark = [pytest.mark.ray, pytest.mark.long, pytest.mark.timeout(300)]

CLUSTER = {
    "cluster_name": "fake",
    "max_workers": 2,
    "idle_timeout_minutes": 5,
    "provider": {
        "type": "fake_multinode",
        "disable_node_updaters": True,
        "disable_launch_config_check": True,
        "launch_multiple": True,
        "head_node_id": FAKE_HEAD_NODE_ID,
    },
    "head_node_type": "ray.head.default",
    "available_node_types": {
        "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        "cpu": {"resources": {"CPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": 2},
    },
    "docker": {},
    "auth": {},
    "file_mounts": {},
    **{name: [] for name in ("cluster_synced_files", "rsync_exclude", "rsync_filter")},
    "file_mounts_sync_continuously": False,
    "upscaling_speed": 1.0,
    **{f"{kind}_commands": [] for kind in ("initialization", "setup", "head_setup", "worker_setup")},
    **{f"{kind}_start_ray_commands": [] for kind in ("head", "worker")},
}
"""Hosts are processes that Ray's autoscaler starts beside the head."""


WAIT = """
import sys, time, ray
from distrib.compat.ray_cluster import has_autoscaler
ray.init(address=sys.argv[1], logging_level="ERROR")
while not has_autoscaler():
    time.sleep(0.2)
"""
"""Ends once the autoscaler, which starts after the head, has said what it may bring."""


@pytest.fixture
def environment():
    path = os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "DISTRIB_"))},
        "PATH": path,
        "PYTHONPATH": str(REPOSITORY),
        "RAY_AUTH_MODE": "disabled",
        "RAY_FAKE_CLUSTER": "1",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
    }


def test_hosts_come_for_the_fewest_workers_and_then_for_more(labs, tmp_path, environment):
    lab = labs.up("a", 1, has_ray=False, names="address")
    Path("/tmp/ray").mkdir(exist_ok=True)
    lab.hide("host1", "/tmp/ray")
    (tmp_path / "cluster.json").write_text(json.dumps(CLUSTER))
    start = ["ray", "start", "--head", "--num-cpus=0", "--autoscaling-config=cluster.json", "--disable-usage-stats"]
    head = {"RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID, "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID}
    started = lab.exec("host1", start, folder=tmp_path, environment=environment | head)
    assert started.returncode == 0, started.stdout + started.stderr
    project = Project(None, tmp_path / "project", workers={"min": 1, "max": 2})
    project.pace(0.3)
    address = f"{lab.host_address('host1')}:6379"
    waited = lab.exec("host1", [sys.executable, "-c", WAIT, address], environment=environment)
    assert waited.returncode == 0, waited.stderr
    command = [sys.executable, "-m", "distrib", "run", "job.yaml", "--address", address]
    output = tmp_path / "output"
    with output.open("w") as file:
        run = lab.popen(
            *("host1", [*command, "--runs-dir", str(project.runs), "--run-id", "run"]),
            folder=project.code,
            environment=environment,
            stdout=file,
            stderr=file,
        )
    deadline = time.monotonic() + 150
    while not project.events("resize"):
        assert run.poll() is None, output.read_text()
        assert time.monotonic() < deadline, output.read_text()
        time.sleep(0.2)
    project.pace(0)
    assert run.wait(100) == 0, output.read_text()
    (resize,) = project.events("resize")
    assert "room for 2 workers" in resize["message"]
