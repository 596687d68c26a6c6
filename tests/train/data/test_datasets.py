"""What is no map-style dataset is refused with the reason."""

import json

import pytest

from distrib.errors import JobError
from distrib.job.reader import Job
from distrib.train.resolved_job import ResolvedJob

MODULE = """
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

class Stream(IterableDataset):
    def __iter__(self):
        yield 1
    def __len__(self):
        return 1

class NoItems(Dataset):
    def __len__(self):
        return 3

class NoLength(Dataset):
    def __getitem__(self, index):
        return index

class NotReady(NoLength):
    def __len__(self):
        raise RuntimeError("not loaded yet")

def loader():
    return DataLoader(TensorDataset(torch.zeros(3)))

def numbers():
    return [1, 2, 3]
"""


@pytest.fixture
def build(tmp_path, monkeypatch):
    (tmp_path / "some_datasets.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)

    def build(name):
        spec = {
            "name": "job",
            "model": {"target": "torch.nn:Linear", "args": {"in_features": 2, "out_features": 2}},
            "data": {"train": f"some_datasets:{name}", "batch_size": 1},
            "loss": "torch.nn:CrossEntropyLoss",
            "optimizer": {"target": "torch.optim:SGD", "args": {"lr": 0.1}},
            "train": {"epochs": 1},
        }
        (tmp_path / "job.yaml").write_text(json.dumps(spec))
        return ResolvedJob.resolve(Job.load(tmp_path / "job.yaml")).build_datasets().train

    return build


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("Stream", "gives a Stream, an IterableDataset"),
        ("NoItems", "gives a NoItems, which has no __getitem__"),
        ("NoLength", "has no __len__"),
        ("NotReady", "the length of some_datasets:NotReady cannot be found: RuntimeError: not loaded yet"),
        ("loader", "gives a DataLoader; give its dataset"),
    ],
)
def test_is_refused(build, name, problem):
    with pytest.raises(JobError, match=r"data\.train: ") as error:
        build(name)
    assert problem in str(error.value)


def test_a_list_is_a_dataset(build):
    assert build("numbers") == [1, 2, 3]
