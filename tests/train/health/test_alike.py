"""Ranks that begin with other data or another model are refused before the first step, with what differs."""

import pytest

pytestmark = pytest.mark.timeout(120)


@pytest.mark.runs("fault-longer-data")
def test_a_dataset_of_another_length(run):
    error = run.output["error"]
    assert (run.exit_code, error["type"], error["kind"]) == (1, "RanksDifferError", "user")
    assert "data.train: the dataset has 21 samples on rank 0 but 22 on rank 1" in error["message"]
    assert not run.events("train")


@pytest.mark.runs("fault-wider-model")
def test_a_model_of_other_shapes(run):
    error = run.output["error"]
    assert (run.exit_code, error["type"], error["kind"]) == (1, "RanksDifferError", "user")
    assert (
        "parameter layer.weight is (3, 4) torch.float64 on rank 0 but (4, 4) torch.float64 on rank 1"
        in error["message"]
    )
    assert not run.events("train")


@pytest.mark.runs("fault-reordered-model")
def test_a_model_with_its_parameters_in_another_order(run):
    error = run.output["error"]
    assert (run.exit_code, error["type"], error["kind"]) == (1, "RanksDifferError", "user")
    assert "parameter layers.left.weight is number 1 on rank 0 but number 3 on rank 1" in error["message"]
    assert not run.events("train")
