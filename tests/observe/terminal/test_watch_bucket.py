"""`distrib watch` of a run in a bucket, of which this host has no file."""

import os
import subprocess
import sys

import pytest

from distrib.runs.events import EventWriter
from distrib.runs.run import Run
from tests.support.s3_fixtures import bucket, s3_server  # noqa: F401

pytestmark = pytest.mark.timeout(120)
SCHEDULE = {"total_steps": 12, "steps_per_epoch": 3, "world_size": 2, "global_batch_size": 8}


def write(run, first, last):
    with EventWriter(run.layout.metrics_file, 0) as events:
        for step in range(first, last + 1):
            events.write("train", step=step, epoch=0, samples=step * 8, loss=1 / step, samples_per_second=80.0)
    run.storage.publish_events(0)


def test_from_the_middle_to_the_end(bucket, tmp_path):  # noqa: F811
    run = Run(f"{bucket.location}/digits-1", is_training=True)
    run.create_record(name="digits", request={"device": "cpu"}, schedule=SCHEDULE, provenance={})
    write(run, 1, 4)
    environment = {**os.environ, "DISTRIB_CACHE_DIR": str(tmp_path / "other host")}
    command = [sys.executable, "-m", "distrib", "watch", f"{bucket.location}/digits-1"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as watcher:
        assert watcher.stdout.readline() == "digits-1: 2 workers on cpu, 12 steps, running\n"
        write(run, 5, 12)
        out = ""
        while "step 12/12" not in out:
            line = watcher.stdout.readline()
            assert line, out
            out += line
        run.update_record(status="finished")
        out += watcher.communicate(timeout=60)[0]
    assert watcher.returncode == 0
    assert "epoch 4/4  step 12/12  loss 0.08333  80.00 samples/s" in out
    assert "finished  loss 0.08333" in out
