"""Samples that cannot be put into one batch are named; collators may be classes."""

import json

import numpy
import pytest
import torch

from distrib.job.reader import Job
from distrib.train.data.collate import CollateError, bind_collate, collate_samples, find_collate

X = torch.ones(2)


@pytest.mark.parametrize(
    ("samples", "problem"),
    [
        ([X, None], "sample 9 is None"),
        ([(X, 1), (X, object())], r"sample 9 is of type object at \[1\]"),
        ([(X, 1), (torch.ones(3), 1)], r"samples 5 and 9 differ at \[0\]: shapes \(2,\) and \(3,\)"),
        ([{"a": 1}, {"b": 1}], "samples 5 and 9 differ: only one of them has a, b"),
        ([(X, X), (X,)], "samples 5 and 9 differ: 2 and 1 entries"),
        ([numpy.array(["a"]), numpy.array(["b"])], "sample 5 has an array of type <U1"),
    ],
)
def test_the_sample_at_fault_is_named(samples, problem):
    with pytest.raises(CollateError, match=problem):
        collate_samples(samples, [5, 9])


def test_samples_that_fit_are_collated():
    inputs, targets = collate_samples([(X, 1), (X, 2)], [0, 1])
    assert (tuple(inputs.shape), targets.tolist()) == ((2, 2), [1, 2])


def make(tmp_path, target):
    (tmp_path / "collators.py").write_text(
        "class Collator:\n    def __init__(self, scale=1):\n        self.scale = scale\n"
        "    def __call__(self, samples):\n        return self.scale * len(samples)\n"
        "class Batch:\n    def __init__(self, samples, scale=1):\n        self.size = scale * len(samples)\n"
        "def function(samples, scale=1):\n    return scale * len(samples)\n"
    )
    spec = {
        "name": "job",
        "model": "torch.nn:Linear",
        "data": {"train": "x:y", "batch_size": 1, "collate": {"target": f"collators:{target}", "args": {"scale": 3}}},
        "loss": "torch.nn:MSELoss",
        "optimizer": "torch.optim:SGD",
        "train": {"epochs": 1},
    }
    (tmp_path / "job.yaml").write_text(json.dumps(spec))
    return Job.load(tmp_path / "job.yaml")


@pytest.mark.parametrize(
    ("target", "read"), [("Collator", int), ("function", int), ("Batch", lambda batch: batch.size)]
)
def test_collators_may_be_instances_functions_or_batches(tmp_path, monkeypatch, target, read):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "collators", raising=False)
    job = make(tmp_path, target)
    assert read(bind_collate(job, find_collate(job))([1, 2])) == 6
