"""The file of final weights."""

import pytest
import torch
from safetensors.torch import load_file, save_model
from torch import nn

from distrib.train.checkpoint.weights import WeightsError, copy_weights, load_weights, save_weights, write_weights


class Tied(nn.Module):
    """The output layer is the embedding."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        self.output = nn.Linear(3, 5, bias=False)
        self.output.weight = self.embedding.weight


class Overlapping(nn.Module):
    """Buffers that share memory: parts of one tensor, and a view of another order."""

    def __init__(self):
        super().__init__()
        table = torch.arange(12.0)
        self.register_buffer("head", table[:5])
        self.register_buffer("table", table)
        self.register_buffer("middle", table[3:9].reshape(2, 3).t())


def compiled(module):
    """What `torch.compile` returns, of which nothing is compiled until it is called."""
    return torch.compile(module)


def fill(module, value):
    with torch.no_grad():
        for tensor in module.state_dict().values():
            tensor.fill_(value)
    return module


@pytest.mark.parametrize("make", [Tied, Overlapping, lambda: nn.BatchNorm1d(3)])
def test_a_file_loads_with_plain_pytorch(tmp_path, make):
    model = make()
    expected = copy_weights(model.state_dict())
    save_weights(model, tmp_path / "saved.safetensors")
    write_weights(expected, tmp_path / "copied.safetensors")
    for name in ("saved", "copied"):
        other = make()
        other.load_state_dict(load_file(tmp_path / f"{name}.safetensors"))
        assert all(torch.equal(tensor, expected[key]) for key, tensor in other.state_dict().items())


def test_tied_weights_stay_tied(tmp_path):
    model, other = Tied(), Tied()
    save_weights(model, tmp_path / "model.safetensors")
    load_weights(other, tmp_path / "model.safetensors")
    assert torch.equal(other.output.weight, model.embedding.weight)
    assert other.output.weight is other.embedding.weight


def test_one_name_of_tied_weights_is_enough(tmp_path):
    model, other = Tied(), Tied()
    save_model(model, tmp_path / "model.safetensors")  # safetensors' own way, and that of earlier files
    assert len(load_file(tmp_path / "model.safetensors")) == 1
    load_weights(other, tmp_path / "model.safetensors")
    assert torch.equal(other.output.weight, model.embedding.weight)


@pytest.mark.parametrize("part", [False, True])
def test_weights_of_a_compiled_model_fit_the_model_itself_and_the_reverse(tmp_path, part):
    def make(is_compiled):
        if part:
            return nn.Sequential(compiled(nn.Linear(2, 2)) if is_compiled else nn.Linear(2, 2), nn.Linear(2, 1))
        return compiled(nn.Linear(2, 2)) if is_compiled else nn.Linear(2, 2)

    for number, (saved, loaded) in enumerate([(True, False), (False, True), (True, True)]):
        path = tmp_path / f"{number}.safetensors"
        save_weights(fill(make(saved), 7.0), path)
        assert not any("_orig_mod" in name for name in load_file(path))
        model = fill(make(loaded), 0.0)
        load_weights(model, path)
        assert all((tensor == 7.0).all() for tensor in model.state_dict().values())


def test_the_file_is_replaced_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_text("old")
    save_weights(nn.BatchNorm1d(2), path)
    assert sorted(load_file(path)) == ["bias", "num_batches_tracked", "running_mean", "running_var", "weight"]
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_is_left_if_it_cannot_be_written(tmp_path):
    path = tmp_path / "model.safetensors"
    path.mkdir()
    (path / "file").touch()
    with pytest.raises(OSError, match=r"model\.safetensors"):
        save_weights(nn.Linear(1, 1), path)
    assert list(tmp_path.iterdir()) == [path]


def test_copied_weights_are_the_same_file_and_independent(tmp_path):
    for model in (Tied(), nn.BatchNorm1d(2), nn.Linear(2, 2).bfloat16()):
        save_weights(model, tmp_path / "saved.safetensors")
        copied = copy_weights(model.state_dict())
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(7)
        write_weights(copied, tmp_path / "copied.safetensors")
        saved = load_file(tmp_path / "saved.safetensors")
        found = load_file(tmp_path / "copied.safetensors")
        assert saved.keys() == found.keys()
        assert all(torch.equal(saved[name], found[name]) for name in saved)


def test_a_transposed_tensor_is_copied():
    model = nn.Module()
    model.weight = nn.Parameter(torch.arange(6.0).reshape(2, 3).t())
    assert torch.equal(copy_weights(model.state_dict())["weight"], model.weight)


@pytest.mark.parametrize("make", [Tied, lambda: nn.BatchNorm1d(3), lambda: nn.Linear(2, 2).bfloat16()])
def test_weights_are_loaded_as_they_were_saved(tmp_path, make):
    model, other = make(), make()
    save_weights(model, tmp_path / "model.safetensors")
    load_weights(other, tmp_path / "model.safetensors")
    for (name, ours), theirs in zip(other.state_dict().items(), model.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name


def test_names_that_do_not_fit_are_listed(tmp_path):
    path = tmp_path / "model.safetensors"
    save_weights(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), path)
    with pytest.raises(WeightsError) as caught:
        load_weights(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)), path)
    assert str(caught.value) == (
        f"model.weights: {path} does not fit the model: "
        "missing in the file: 2.bias, 2.weight; unknown to the model: 1.bias, 1.weight"
    )


def test_shapes_that_do_not_fit_are_listed_and_nothing_is_loaded(tmp_path):
    path = tmp_path / "model.safetensors"
    save_weights(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 3)), path)
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 4))
    before = copy_weights(model.state_dict())
    with pytest.raises(WeightsError, match=r"1\.bias: \(3,\) in the file, \(4,\) in the model; 1\.weight: \(3, 2\)"):
        load_weights(model, path)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("content", [None, b"", b"no weights at all", b"\xff" * 100])
def test_a_file_of_weights_that_cannot_be_read(tmp_path, content):
    path = tmp_path / "model.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"model\.weights: .*model\.safetensors cannot be read: "):
        load_weights(nn.Linear(1, 1), path)


class Scaled(nn.Module):
    """Keeps numbers in its extra state."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(1, 1)
        self.scale = {"largest": 1.0, "seen": torch.zeros(2)}

    def get_extra_state(self):
        return self.scale

    def set_extra_state(self, state):
        self.scale = state


def test_extra_state_is_written_and_loaded(tmp_path):
    model, other = nn.Sequential(Scaled()), nn.Sequential(Scaled())
    model[0].scale = {"largest": 2.5, "seen": torch.tensor([3.0, 4.0])}
    save_weights(model, tmp_path / "model.safetensors")
    load_weights(other, tmp_path / "model.safetensors")
    assert other[0].scale["largest"] == 2.5
    assert other[0].scale["seen"].tolist() == [3, 4]
    assert set(load_file(tmp_path / "model.safetensors")) == {"0.inner.weight", "0.inner.bias"}
