"""The tensors of a training by name, shared out, taken apart and put together again."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from distrib.train.checkpoint.plain_state import dump_state, load_state
from distrib.train.checkpoint.tensors import join_optimizer, model_tensors, share_of, split_optimizer


class Model(nn.Module):
    """Has parameters of one and of no element, tied ones, and buffers of which one is not kept."""

    def __init__(self, dtype=torch.float32, num_empty_rows=0):
        super().__init__()
        self.first = nn.Linear(4, 4, dtype=dtype)
        self.norm = nn.BatchNorm1d(4, dtype=dtype)
        self.second = nn.Linear(4, 4, dtype=dtype)
        self.second.weight = self.first.weight
        self.scale = nn.Parameter(torch.ones((), dtype=dtype))
        self.nothing = nn.Parameter(torch.ones(num_empty_rows, 3, dtype=dtype))
        self.frozen = nn.Parameter(torch.ones(2, dtype=dtype), requires_grad=False)
        self.register_buffer("scratch", torch.ones(5), persistent=False)

    def forward(self, inputs):
        return self.second(self.norm(self.first(inputs))).square().mean() * self.scale + self.nothing.sum()


class InSinglePrecision(torch.optim.Optimizer):
    """Keeps its state in float32 whatever the parameters are, and a list and a counter besides."""

    def __init__(self, params, lr=0.1):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["master"], state["history"], state["count"] = parameter.float().clone(), [], 0
                state["master"] -= group["lr"] * parameter.grad.float()
                state["count"] += 1
                state["history"].append(float(state["master"].sum()))
                parameter.copy_(state["master"])


OPTIMIZERS = {
    "SGD": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}),
    "Adam": (torch.optim.Adam, {"amsgrad": True}),
    "AdamW fused": (torch.optim.AdamW, {"fused": True}),
    "NAdam": (torch.optim.NAdam, {}),
    "Adagrad": (torch.optim.Adagrad, {}),
    "RMSprop": (torch.optim.RMSprop, {"centered": True, "momentum": 0.5}),
    "Adadelta": (torch.optim.Adadelta, {}),
    "Rprop": (torch.optim.Rprop, {}),
    "ASGD": (torch.optim.ASGD, {}),
    "Adafactor": (torch.optim.Adafactor, {}),
    "rate as a tensor": (torch.optim.Adam, {"lr": torch.tensor(0.01), "foreach": False}),
    "state of another type": (InSinglePrecision, {}),
}


def train(model, optimizer, seed):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(3):
        dtype = model.scale.dtype
        model(torch.randn(6, 4, generator=generator).to(dtype)).backward()
        optimizer.step()
        optimizer.zero_grad()


def test_model_tensors_are_named_once():
    parameters, buffers = model_tensors(Model())
    assert sorted(parameters) == [
        f"model/{name}"
        for name in (
            *("first.bias", "first.weight", "frozen", "norm.bias", "norm.weight", "nothing", "scale", "second.bias"),
        )
    ]
    assert sorted(buffers) == [f"model/norm.{name}" for name in ("num_batches_tracked", "running_mean", "running_var")]


def test_model_tensors_are_the_models_own():
    model = Model()
    parameters, buffers = model_tensors(model)
    parameters["model/scale"].fill_(7)
    buffers["model/norm.running_mean"].fill_(3)
    assert model.scale.item() == 7
    assert model.norm.running_mean.tolist() == [3.0] * 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_goes_on_as_it_would_have(name, dtype):
    factory, arguments = OPTIMIZERS[name]
    model = Model(dtype, num_empty_rows=int(name == "Adafactor"))  # which divides by the number of elements
    optimizer = factory(model.parameters(), **copy.deepcopy(arguments))
    train(model, optimizer, seed=1)
    tensors, plain = split_optimizer(optimizer)
    saved, text = {name: tensor.clone() for name, tensor in tensors.items()}, dump_state(plain)

    other = copy.deepcopy(model)
    resumed = factory(other.parameters(), **{**copy.deepcopy(arguments), "lr": 0.5})
    join_optimizer(resumed, saved, load_state(text))
    for before, after in zip(model.parameters(), other.parameters(), strict=True):
        kept, mine = resumed.state.get(after, {}), optimizer.state.get(before, {})
        assert kept.keys() == mine.keys()
        for key, value in mine.items():
            if isinstance(value, torch.Tensor):
                assert (kept[key].dtype, kept[key].shape) == (value.dtype, value.shape)
                assert torch.equal(kept[key], value)
            else:
                assert kept[key] == value
    train(model, optimizer, seed=2)
    train(other, resumed, seed=2)
    for (key, value), other_value in zip(model.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(value, other_value), key


@given(st.lists(st.integers(0, 50), max_size=12), st.lists(st.integers(0, 30), max_size=3), st.integers(1, 6))
def test_shares_are_disjoint_complete_and_about_even(sizes, buffer_sizes, world_size):
    tensors = {f"t{number}": torch.zeros(size) for number, size in enumerate(sizes)}
    buffers = {f"b{number}": torch.zeros(size) for number, size in enumerate(buffer_sizes)}
    shares = [share_of(tensors, buffers, rank, world_size) for rank in range(world_size)]
    assert sorted(name for share in shares for name in share) == sorted([*tensors, *buffers])
    assert set(buffers) <= set(shares[0])
    for share in shares:
        for name, tensor in share.items():
            assert tensor is {**tensors, **buffers}[name]
    loads = [sum(tensor.nbytes for tensor in share.values()) for share in shares]
    of_buffers = sum(tensor.nbytes for tensor in buffers.values())
    largest = max((tensor.nbytes for tensor in tensors.values()), default=0)
    assert max(loads) <= max(of_buffers, sum(loads) / world_size + largest)


def test_shares_do_not_depend_on_the_order_of_names():
    tensors = {name: torch.zeros(3) for name in "abcdef"}
    backwards = dict(reversed(tensors.items()))
    assert [set(share_of(tensors, {}, rank, 4)) for rank in range(4)] == [
        set(share_of(backwards, {}, rank, 4)) for rank in range(4)
    ]
