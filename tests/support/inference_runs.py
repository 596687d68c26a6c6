"""Run folders as training leaves them, created without training."""

import shutil
from pathlib import Path

import torch

from distrib.inference.trained_model import open_trained
from distrib.runs.record import create_record, update_record
from distrib.runs.run import Run
from distrib.train.checkpoint.weights import save_weights
from tests.support import inference_jobs

JOB = """\
name: small
model: inference_jobs:Mlp
data:
  train: {target: inference_jobs:Rows, args: {count: 24}}
  batch_size: 4
loss: torch.nn:CrossEntropyLoss
optimizer: {target: torch.optim:SGD, args: {lr: 0.1}}
train: {epochs: 1}
resources: {workers: 1, device: cpu}
"""

SIGNATURE = [{"shape": [None, 4], "dtype": "float64"}, {"shape": [None], "dtype": "int64"}]


def copy_module(folder):
    """Puts the module of the jobs where a user's would be."""
    shutil.copy(Path(inference_jobs.__file__), folder)


def make_model(name="Mlp", **args):
    """A model whose BatchNorm has seen data; the same every time."""
    torch.manual_seed(3)
    model = getattr(inference_jobs, name)(**args)
    model.layers(torch.randn(64, 4, dtype=torch.float64) * 2 + 1)
    return model.eval()


def make_run(folder, *, job=JOB, model=None, signature=SIGNATURE, status="finished", run_id="made"):
    """A run with its final weights in FOLDER/runs, and the module of its job in FOLDER."""
    copy_module(folder)
    run = Run(folder / "runs" / run_id)
    run.folder.mkdir(parents=True)
    create_record(run.folder, name="small", request={}, schedule={"total_steps": 6}, provenance={},
                  input_signature=signature)  # fmt: skip
    run.layout.job_file.write_text(job)
    if status != "running":
        update_record(run.folder, status=status)
    save_weights(model or make_model(), run.weights)
    return run


def trained_by(run, monkeypatch, weights="last"):
    """The trained model of a run, with the working directory where its module is."""
    monkeypatch.chdir(run.folder.parent.parent)
    return open_trained(run, weights)


def expected_outputs(model, count):
    """What a plain loop says of `Rows(count)`: float64 [count, 3]."""
    rows = inference_jobs.Rows(count)
    with torch.no_grad():
        return torch.cat([model(rows[index][0][None]) for index in range(count)] or [torch.empty(0, 3).double()])
