"""Ray on the hosts of a lab: jobs from the machine, and nodes that join and leave."""

import time

import pytest

from tests.support.lab_runs import headers, wait_for_state

pytestmark = [pytest.mark.ray, pytest.mark.long, pytest.mark.timeout(240)]

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


def test_a_host_joins_and_is_drained(lab):
    host = lab.join(gpus=0)
    wait_for_state(lab, host, "ALIVE", seconds=40)
    lab.leave(host, deadline_seconds=10)
    node = wait_for_state(lab, host, "DEAD", seconds=40)
    assert "the host leaves the lab" in node["state_message"]
    assert lab.processes(host) == {}
    assert lab.status()["hosts"][-1]["status"] == "left"
