"""The file of final weights."""

import pytest
import torch
from safetensors.torch import load_file, load_model
from torch import nn

from distrib.train.weights import save_weights


class Tied(nn.Module):
    """The output layer is the embedding."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        self.output = nn.Linear(3, 5, bias=False)
        self.output.weight = self.embedding.weight


def test_tied_weights_are_written_once_and_stay_tied(tmp_path):
    model, other = Tied(), Tied()
    save_weights(model, tmp_path / "model.safetensors")
    assert len(load_file(tmp_path / "model.safetensors")) == 1
    load_model(other, tmp_path / "model.safetensors")
    assert torch.equal(other.output.weight, model.embedding.weight)
    assert other.output.weight is other.embedding.weight


def test_the_file_is_replaced_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_text("old")
    save_weights(nn.BatchNorm1d(2), path)
    assert sorted(load_file(path)) == ["bias", "num_batches_tracked", "running_mean", "running_var", "weight"]
    assert list(tmp_path.iterdir()) == [path]


def test_where_it_cannot_be_written_nothing_is_left(tmp_path):
    path = tmp_path / "model.safetensors"
    path.mkdir()
    (path / "file").touch()
    with pytest.raises(OSError, match=r"model\.safetensors"):
        save_weights(nn.Linear(1, 1), path)
    assert list(tmp_path.iterdir()) == [path]
