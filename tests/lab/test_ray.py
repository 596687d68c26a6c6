"""Ray on the hosts of a lab: jobs from the machine, and nodes that join and leave."""

import json
import time
import urllib.request
from pathlib import Path

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.timeout(120)]

JOB = """
import os, socket, ray
ray.init(logging_level="ERROR")
@ray.remote(num_cpus=1, num_gpus=1, scheduling_strategy="SPREAD")
class Worker:
    def where(self):
        return socket.gethostname()
workers = [Worker.remote() for _ in range(3)]
print("driver on", socket.gethostname(), "workers on", *sorted(ray.get([w.where.remote() for w in workers])))
"""


def headers(lab):
    """What lets a client into the lab's Ray."""
    return {"Authorization": f"Bearer {Path(lab.token_file).read_text()}"}


def nodes(lab):
    """What Ray's head knows of the hosts by address: the newest node's state and why it is in it."""
    request = urllib.request.Request(f"{lab.address}/api/v0/nodes?detail=1&limit=100", headers=headers(lab))
    with urllib.request.urlopen(request, timeout=30) as answer:
        listed = json.load(answer)["data"]["result"]["result"]
    newest = {}
    for node in sorted(listed, key=lambda node: node["start_time_ms"]):
        newest[node["node_ip"]] = node
    return newest


def wait_for_state(lab, host, state, seconds):
    deadline = time.monotonic() + seconds
    while (node := nodes(lab).get(lab.host_address(host), {"state": None}))["state"] != state:
        assert time.monotonic() < deadline, node
        time.sleep(0.1)
    return node


def test_a_job_from_the_machine_runs_on_all_hosts(lab):
    from ray.job_submission import JobSubmissionClient

    client = JobSubmissionClient(lab.address, headers=headers(lab))
    job = client.submit_job(entrypoint=f"python -c '{JOB}'")
    deadline = time.monotonic() + 60
    while not (status := client.get_job_status(job)).is_terminal():
        assert time.monotonic() < deadline, client.get_job_logs(job)
        time.sleep(0.2)
    assert status == "SUCCEEDED", client.get_job_logs(job)
    assert "driver on host1 workers on host1 host2 host3" in client.get_job_logs(job)


def test_ray_soon_takes_a_killed_host_for_dead_and_the_others_for_alive(lab):
    lab.kill("host3")
    wait_for_state(lab, "host3", "DEAD", seconds=8)  # 12 s and more without the settings of cluster/head.env
    assert [nodes(lab)[lab.host_address(host)]["state"] for host in ("host1", "host2")] == ["ALIVE", "ALIVE"]
    lab.join("host3")
    wait_for_state(lab, "host3", "ALIVE", seconds=40)


def test_a_host_joins_and_is_drained(lab):
    host = lab.join(gpus=0)
    wait_for_state(lab, host, "ALIVE", seconds=40)
    lab.leave(host, deadline_seconds=10)
    node = wait_for_state(lab, host, "DEAD", seconds=40)
    assert "the host leaves the lab" in node["state_message"]
    assert lab.processes(host) == {}
    assert lab.status()["hosts"][-1]["status"] == "left"
