"""A billion samples cost what a thousand cost: the plan, a start in the middle of an epoch, and the steps."""

import json
import shutil
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(120)

SUPPORT = Path(__file__).parents[2] / "support"
LONG, SHORT = 10**9, 1000
ALLOWED_BYTES = 50 * 2**20


def make_spec(num_samples):
    return {
        "name": "long",
        "model": {"target": "torch.nn:Linear", "args": {"in_features": 2, "out_features": 2}},
        "data": {"train": {"target": "endless_jobs:Endless", "args": {"num_samples": num_samples}}, "batch_size": 64},
        "loss": "torch.nn:CrossEntropyLoss",
        "optimizer": {"target": "torch.optim:SGD", "args": {"lr": 0.01}},
        "train": {"steps": 100, "log_every": 50},
        "callbacks": ["endless_jobs:PeakMemory"],
        "resources": {"workers": 2, "device": "cpu"},
        "checkpoint": {"every": "never"},
    }


def test_a_billion_samples_cost_what_a_thousand_cost(tmp_path, command_server):
    peaks, seconds = {}, {}
    for num_samples in (SHORT, LONG):
        folder = tmp_path / str(num_samples)
        folder.mkdir()
        shutil.copy(SUPPORT / "endless_jobs.py", folder)
        (folder / "job.yaml").write_text(json.dumps(make_spec(num_samples)))
        plan = command_server.run(["plan", "job.yaml", "--json"], folder, timeout=50)
        assert plan.returncode == 0, plan.stderr
        assert json.loads(plan.stdout)["schedule"]["train_samples"] == num_samples
        started = time.monotonic()
        arguments = ["run", "job.yaml", "--runs-dir", "runs", "--run-id", "run", "--record-samples"]
        finished = command_server.run(arguments, folder, timeout=100)
        assert finished.returncode == 0, finished.stdout + finished.stderr
        seconds[num_samples] = time.monotonic() - started
        peaks[num_samples] = int((folder / "peak.txt").read_text())
    assert peaks[LONG] < peaks[SHORT] + ALLOWED_BYTES
    assert seconds[LONG] < seconds[SHORT] + 40  # a permutation would take minutes
    rows = [json.loads(line) for line in (folder / "runs/run/samples/rank-0.jsonl").read_text().splitlines()]
    indices = [index for row in rows for index in row["ids"]]
    assert len(set(indices)) == len(indices) == 100 * 32
    assert max(indices) > LONG * 0.99
