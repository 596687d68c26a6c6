"""A host whose CPU others use is named by the table of the ranks and in a warning."""

import json

import pytest

from distrib.observe.summary import rank_lines, summarize
from tests.support.lab_runs import Project, make_job
from tests.support.throttle import Throttle

pytestmark = [pytest.mark.ray, pytest.mark.long, pytest.mark.timeout(400)]

NUM_STEPS = 90
"""More than the comparisons that a warning needs: five of ten steps each, after the first step."""


BUSY = """
import hashlib
from exact_jobs import Mlp


class Busy(Mlp):
    def forward(self, inputs):
        if self.training:
            for _ in range(12):
                hashlib.sha256(bytes(2**21)).digest()
        return super().forward(inputs)
"""
"""A model that computes for some hundredths of a second of CPU time in each step."""


def test_a_host_with_a_shared_cpu_is_named(labs, tmp_path):
    lab = labs.up("s", 3, cpus=1, has_bare_head=True)
    project = Project(lab, tmp_path / "project")
    job = make_job(workers=2, placement="strict_spread")
    (project.code / "busy.py").write_text(BUSY)
    job |= {"model": "busy:Busy", "train": {"steps": NUM_STEPS, "log_every": 5}}
    (project.code / "job.yaml").write_text(json.dumps(job))
    launch = project.start()
    try:
        launch.wait_until(lambda: project.steps())
        host, pid = project.place_of(1)
        throttle = Throttle(pid)
        throttle.start()
        try:
            assert launch.wait() == 0, launch.output
        finally:
            throttle.end()
    finally:
        project.close()
    (warning,) = [event for event in project.events("warning") if event.get("slow_at")]
    assert (warning["rank"], warning["slow_at"]) == (1, "compute")
    assert lab.host_address(host) in warning["host"]
    first, second = summarize(project.run, 0)["ranks"]
    assert (first["slow_at"], second["slow_at"]) == (None, "compute")
    assert second["compute_seconds"] > 2 * first["compute_seconds"]
    (row,) = [line for line in rank_lines(project.run) if "slow at compute" in line]
    assert lab.host_address(host) in row
