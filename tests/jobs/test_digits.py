"""The digits job: its data, its fixed split, and the accuracy it reaches."""

import hashlib

import pytest
import torch

from jobs.digits import NUM_SAMPLES, Digits, Mlp, split_indices


def test_test_split_never_changes():
    digest = hashlib.sha256(split_indices("test").numpy().astype("<i8").tobytes()).hexdigest()
    assert digest == "aa37619442cb471343af4e873d03241cf38fa94f997982c193c87da28ff6ad38"


def test_splits_are_disjoint_and_complete():
    both = torch.cat([split_indices("train"), split_indices("test")])
    assert sorted(both.tolist()) == list(range(NUM_SAMPLES))


@pytest.mark.parametrize(("split", "length"), [("train", 1437), ("test", 360)])
def test_samples_are_scaled_images_and_classes(split, length):
    inputs, targets = Digits(split).tensors
    assert (inputs.shape, inputs.dtype) == ((length, 64), torch.float32)
    assert (targets.shape, targets.dtype) == ((length,), torch.int64)
    assert (inputs.min(), inputs.max()) == (0, 1)
    assert targets.unique().tolist() == list(range(10))


def test_unknown_split_is_refused():
    with pytest.raises(ValueError, match="train and test, not 'eval'"):
        Digits("eval")


def test_model_gives_a_logit_for_each_class():
    assert Mlp(hidden=16)(torch.rand(3, 64)).shape == (3, 10)


def test_run_reads_digits_it_never_saw(run_job):
    run = run_job("digits.yaml")
    last = run.events("eval")[-1]
    assert last["accuracy"] >= 0.97
    assert last["step"] == run.events("train")[-1]["step"] == 20 * 23
