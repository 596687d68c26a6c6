"""A sample that is not the same on all ranks is found before the first step; augmentation is not taken for one."""

import random
import time

import numpy
import pytest
import torch
import torch.distributed as dist
from torch.utils.data import TensorDataset

from distrib.train.health import spot_sample
from distrib.train.health.spot_check import compare_samples
from distrib.train.health.spot_sample import SampleDigest, SpotSample
from distrib.train.process.rank_tree import RankTree
from tests.support.ranks import run_ranks

pytestmark = pytest.mark.timeout(120)

IMAGE = torch.arange(12.0).reshape(3, 4)


class Samples:
    """Three samples of one kind.

    Args:
        kind: How they depend on the rank.
    """

    def __init__(self, kind):
        self._kind = kind
        self._own = numpy.random.default_rng()
        self.num_fetched = 0  # training must not see what was fetched for the comparison
        self._noise = numpy.random.default_rng().random()  # as of a dataset that is made of unseeded random numbers

    def __len__(self):
        return 3

    def __getitem__(self, index):
        rank = dist.get_rank()
        self.num_fetched += 1
        if "slow" in self._kind:
            time.sleep(0.3)
        if self._kind == "missing" and rank == 1:
            raise FileNotFoundError("sample.png")
        if self._kind == "broken":
            raise ValueError(f"no image in /disk{rank}/sample.png")
        values = {
            "augmented": lambda: IMAGE + torch.rand(3, 4) + random.random() + numpy.random.random(),
            "by rank": lambda: IMAGE + (rank == 1),
            "own generator": lambda: IMAGE + self._own.random(),
            "own generator, slow": lambda: IMAGE + self._own.random(),
            "random data": lambda: IMAGE + self._noise,
            "slightly": lambda: IMAGE + 1e-6 * (rank == 2),
        }
        path = f"/disk{rank}/sample.png" if self._kind == "paths" else "sample.png"
        return {"image": values.get(self._kind, lambda: IMAGE)(), "path": path, "target": index}


def find(rank, kind, hardware=("AVX2", "AVX2", "AVX2")):
    dataset = TensorDataset(IMAGE, IMAGE) if kind == "tensors" else Samples(kind)
    sample = SpotSample(dataset, 1, seed=0)
    found = compare_samples(sample.fetch(), sample.fetch, RankTree(dist.group.WORLD), hardware[rank])
    assert not getattr(dataset, "num_fetched", 0)
    return None if found is None else (found.is_error, found.message)


def find_all(rank, world_size):
    spot_sample._PATIENCE_SECONDS = 30.0  # in this process of the test; the machine may be busy
    kinds = ("same", "tensors", "augmented", "broken", "by rank", "own generator", "random data", "slightly", "slow")
    found = {kind: find(rank, kind) for kind in (*kinds, "missing", "paths", "own generator, slow")}
    found["rounding"] = find(rank, "slightly", hardware=("AVX2", "AVX2", "AVX512"))
    return found


def test_what_is_found_of_a_sample():
    found, *others = run_ranks(find_all, 3)
    assert all(each == found for each in others)
    harmless = ("same", "tensors", "augmented", "broken", "slow")
    assert [found[kind] for kind in harmless] == [None] * len(harmless)
    errors = {kind for kind, value in found.items() if value is not None and value[0]}
    assert errors == {"by rank", "random data", "slightly", "missing"}
    assert found["by rank"][1].startswith("is not the same on rank 1 as on rank 0: look for files that differ")
    assert found["slightly"][1].startswith("is not the same on rank 2")
    assert found["missing"][1].startswith("cannot be read on rank 1, but can on rank 0: FileNotFoundError: sample.png")
    assert "is random in a way that no seed repeats" in found["own generator"][1]
    assert "is random in a way that no seed repeats" in found["own generator, slow"][1]
    assert "has other texts on rank 1 than on rank 0" in found["paths"][1]
    assert "may round differently" in found["rounding"][1]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (IMAGE, IMAGE.double()),
        (IMAGE, IMAGE.reshape(4, 3)),
        ([1, 2], [1, 3]),
        ([1, [2]], [1, 2]),
        (numpy.zeros(2), numpy.zeros(2, dtype=numpy.float32)),
        (torch.tensor(0.0), torch.tensor(-0.0)),
        ({"a": 1, "b": None}, {"a": 1, "b": False}),
    ],
)
def test_samples_that_differ(one, other):
    assert SampleDigest.of(one) == SampleDigest.of(one)
    assert SampleDigest.of(one).numbers != SampleDigest.of(other).numbers


def test_objects_of_unknown_types_are_not_compared():
    assert SampleDigest.of([object(), {1}]) == SampleDigest.of([object(), {2}])


@pytest.mark.runs("fault-other-data")
def test_a_run_whose_ranks_have_other_data_is_refused(run):
    error = run.output["error"]
    assert (run.exit_code, error["type"], error["kind"]) == (1, "RanksDifferError", "user")
    assert "data.train: sample " in error["message"]
    assert "is not the same on rank 1 as on rank 0" in error["message"]
    assert not run.events("train")


@pytest.mark.runs("fault-own-generator")
def test_a_dataset_with_a_generator_of_its_own_is_a_warning(run):
    assert run.exit_code == 0
    assert any("no seed repeats" in event["message"] for event in run.events("warning"))
