"""`distrib run` and `distrib plan` with real training."""

import json
import subprocess

import pytest

MODULE = """
import torch

class Data(torch.utils.data.Dataset):
    def __len__(self):
        return 12

    def __getitem__(self, index):
        return torch.ones(2) * index, torch.zeros(1)

class Fails(torch.nn.Module):
    def forward(self, outputs, targets):
        raise ValueError("no such label: 11")
"""

JOB = """
name: tiny
model: {target: torch.nn:Linear, args: {in_features: 2, out_features: 1}}
data: {train: tiny:Data, eval: tiny:Data, batch_size: 4}
loss: torch.nn:MSELoss
optimizer: {target: torch.optim:SGD, args: {lr: 0.001}}
train: {epochs: 2}
resources: {workers: 1, device: cpu}
"""


@pytest.fixture
def tiny(tmp_path):
    (tmp_path / "tiny.py").write_text(MODULE)
    (tmp_path / "job.yaml").write_text(JOB)
    return tmp_path


def test_a_finished_run(distrib, tiny):
    result = distrib("run", "job.yaml", "--run-id", "one")
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == "one: 1 worker on cpu, 6 steps of 4 samples"
    assert lines[1].startswith("epoch 1/2  step 1/6  loss ")
    assert lines[-9].startswith("finished  loss ")
    assert lines[-4:] == [
        "  weights     runs/one/model.safetensors",
        "  use it      distrib serve one",
        "              or predict, export, latency in place of serve",
        "  all runs    distrib list",
    ]


def test_json_is_all_there_is_on_stdout(forked_distrib, tiny):
    result = forked_distrib("run", "job.yaml", "--run-id", "two", "--json")
    answer = json.loads(result.stdout)
    assert (answer["id"], answer["status"], answer["exit_code"], result.returncode) == ("two", "finished", 0, 0)
    assert answer["folder"] == str(tiny / "runs" / "two")
    assert answer["metrics"].keys() == {"loss"}
    assert answer["samples_per_second"] > 0
    assert answer["duration_seconds"] > 0
    assert answer["first_step_seconds"] > 0
    assert answer["error"] is None
    assert "epoch 2/2  step 6/6" in result.stderr


def test_a_failed_run(forked_distrib, distrib, tiny):
    result = forked_distrib("run", "job.yaml", "--run-id", "three", "--set", "loss=tiny:Fails", "--json")
    answer = json.loads(result.stdout)
    assert (answer["status"], answer["exit_code"], result.returncode) == ("failed", 1, 1)
    assert (answer["error"]["rank"], answer["error"]["type"]) == (0, "ValueError")
    assert "ValueError: no such label: 11" in result.stderr
    assert 'tiny.py", line 13, in forward' in result.stderr
    assert "runs/three/logs/rank-0.log" in result.stderr
    listed = distrib("list").stdout
    assert "failed" in listed
    assert "ValueError: no such label: 11" in listed


def test_a_reader_that_goes_away_does_not_change_the_result(distrib, tiny):
    with subprocess.Popen(["true"], stdin=subprocess.PIPE) as reader:
        reader.wait()
        result = distrib("run", "job.yaml", "--run-id", "four", capture_output=False, stdout=reader.stdin, stderr=-1)
    assert (result.returncode, result.stderr) == (0, "")
    assert (tiny / "runs" / "four" / "model.safetensors").exists()


def test_the_plan(forked_distrib, tiny):
    listing = forked_distrib("plan", "job.yaml", "--workers", "2").stdout
    assert "  batch              4 samples, 2 per rank\n" in listing
    assert "Kept in runs/tiny-20" in listing
    plan = json.loads(forked_distrib("plan", "job.yaml", "--workers", "2", "--json").stdout)
    assert plan["request"]["min_workers"] == 2
    assert plan["schedule"]["rank_batches"] == [2, 2]
    assert not (tiny / "runs").exists()
