"""What cannot be trained is refused before anything is started, in one line at its field."""

import json

import pytest

from distrib.errors import JobError
from distrib.job.reader import Job
from distrib.job.step_plan import Facts, make_step_plan
from distrib.train.checks.check_parts import check_parts
from distrib.train.resolved_job import ResolvedJob

PARTS = """
import torch
from torch import nn

class Frozen(nn.Linear):
    def __init__(self):
        super().__init__(2, 2)
        self.requires_grad_(False)

class NeedsValues(nn.Linear):
    def __init__(self):
        super().__init__(2, 2)
        self.bound = self.weight.abs().max().item()

def lazy():
    return nn.Sequential(nn.LazyLinear(2))

def lazy_buffers():
    return nn.Sequential(nn.Linear(2, 2), nn.LazyBatchNorm1d(affine=False))

class LazyLoss(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.LazyLinear(2)

def two(model):
    return [torch.optim.SGD(model.parameters(), lr=0.1), torch.optim.AdamW(model.parameters())]

class ByDimension(torch.optim.Optimizer):
    def __init__(self, params, lr):
        params = list(params)
        groups = [{"params": [p for p in params if p.ndim == n]} for n in (1, 2)]
        super().__init__(groups, {"lr": lr})

class Proxies(nn.Module):
    def __init__(self):
        super().__init__()
        self.points = nn.Parameter(torch.zeros(2))

def of_model(model):
    return torch.optim.SGD(model.parameters(), lr=0.1)

def of_both(model, loss):
    return torch.optim.SGD([*model.parameters(), *loss.parameters()], lr=0.1)

class Odd(torch.optim.lr_scheduler.LRScheduler):
    def __init__(self, optimizer):
        self.odd = object()
        super().__init__(optimizer)
    def get_lr(self):
        return self.base_lrs
def absent():
    raise FileNotFoundError("weights that only the workers have")
"""
F1 = {"target": "torchmetrics.classification:MulticlassF1Score", "args": {"num_classes": 3, "average": "none"}}
ACCURACY = "torchmetrics.classification:MulticlassAccuracy"
SGD = {"target": "torch.optim:SGD", "args": {"lr": 0.1}, "parameters": ["*"]}
PLATEAU = {"target": "torch.optim.lr_scheduler:ReduceLROnPlateau", "every": "eval", "metric": "f1"}
SPEC = {
    "name": "job",
    "model": {"target": "torch.nn:Linear", "args": {"in_features": 2, "out_features": 2}},
    "data": {"train": "torch.utils.data:TensorDataset", "eval": "torch.utils.data:TensorDataset", "batch_size": 1},
    "loss": "torch.nn:CrossEntropyLoss",
    "optimizer": {"target": "torch.optim:SGD", "args": {"lr": 0.1}},
    "train": {"epochs": 1},
}


@pytest.fixture
def check(tmp_path, monkeypatch):
    """`check(**changes)`: checks a job with some fields changed."""
    (tmp_path / "parts_to_check.py").write_text(PARTS)
    monkeypatch.syspath_prepend(tmp_path)

    def check(**changes):
        (tmp_path / "job.yaml").write_text(json.dumps({**SPEC, **changes}))
        job = Job.load(tmp_path / "job.yaml")
        check_parts(ResolvedJob.resolve(job), make_step_plan(job.spec, Facts(4, 4), 1), may_allocate=True)

    return check


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"model": "parts_to_check:Frozen"}, "model: there is nothing to train: all its 2 parameters are frozen"),
        ({"model": "parts_to_check:lazy"}, "model: 0.weight, 0.bias: lazy layers have no shape"),
        ({"model": "parts_to_check:lazy_buffers"}, "model: 1.running_mean, 1.running_var: lazy layers have no shape"),
        ({"loss": "parts_to_check:LazyLoss"}, "loss: loss.head.weight, loss.head.bias: lazy layers have no shape"),
        (
            {"metrics": {"acc": ACCURACY}},
            "metrics.acc: torchmetrics.classification:MulticlassAccuracy could not be built: ValueError: Argument",
        ),
        ({"metrics": {"f1": "parts_to_check:lazy"}}, "metrics.f1: parts_to_check:lazy gave a Sequential"),
        ({"optimizer": "torch.optim:LBFGS"}, "optimizer: LBFGS evaluates the loss several times"),
        ({"optimizer": "parts_to_check:two"}, "optimizer: parts_to_check:two gave a list of 2"),
        ({"optimizer": {"target": "torch.optim:SGD", "args": {"lr": -1}}}, "Invalid learning rate: -1"),
        ({"optimizer": {"target": "torch.optim:SGD", "args": {"lr": "1e-2x"}}}, "; args.lr is the text '1e-2x': if it"),
        ({"schedule": "parts_to_check:Odd"}, "state.scheduler.odd is a object, which a checkpoint cannot hold"),
        (
            {"loss": "parts_to_check:Proxies", "optimizer": "parts_to_check:of_model"},
            "leaves out the loss's parameters loss.points",
        ),
        (
            {"metrics": {"f1": F1}, "checkpoint": {"best": {"metric": "f1", "mode": "max"}}},
            "checkpoint.best.metric: the value of metric f1 has the shape",
        ),
        (
            {"metrics": {"f1": F1}, "optimizer": None, "optimizers": {"all": {**SGD, "schedule": PLATEAU}}},
            "optimizers.all.schedule.metric: the value of metric f1 has the shape",
        ),
    ],
)
def test_is_refused(check, changes, problem):
    with pytest.raises(JobError) as error:
        check(**changes)
    assert problem in str(error.value)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"metrics": {"distance": "parts_to_check:absent"}},
        {"model": "parts_to_check:NeedsValues"},
        {"optimizer": {"target": "parts_to_check:ByDimension", "args": {"lr": 0.1}}},
        {"loss": "parts_to_check:Proxies"},
        {"loss": "parts_to_check:Proxies", "optimizer": "parts_to_check:of_both"},
    ],
)
def test_passes(check, changes):
    check(**changes)
