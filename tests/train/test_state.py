"""Whatever is registered is saved and restored, by name and at any number of ranks."""

import copy

import pytest
import torch
from torch import nn

from distrib.train.checkpoint.parts import ModelPart, OptimizerPart, RestoreError
from distrib.train.checkpoint.plain_state import StateError, dump_state, load_state
from distrib.train.checkpoint.tensors import join_tensors, split_tensors
from distrib.train.state import TrainingState
from distrib.train.strategy import replicated
from distrib.train.strategy.single import SingleProcess
from tests.support.memory_checkpoint import MemoryCheckpoint


class Model(nn.Module):
    """Has parameters of one and of no element, tied ones, and buffers of which one is not saved."""

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


class ReplicatedStrategy(SingleProcess):
    """One of several ranks that need no group, since nothing is synchronized in these tests."""

    def __init__(self, rank, world_size):
        self._rank, self._world_size = rank, world_size

    def share(self, tensors):
        return replicated.share_of(tensors, self._rank, self._world_size)


class Counter:
    """An object of the user's, different on each rank if it is kept so."""

    def __init__(self, count=0):
        self.count = count
        self.table = torch.full((3,), float(count))

    def state_dict(self):
        return {"count": self.count, "table": self.table, "none": None}

    def load_state_dict(self, state):
        self.count, self.table = state["count"], state["table"].clone()


class SummedCounter(Counter):
    def merge_ranks(self, states, rank, world_size):
        total = sum(state["count"] for state in states)
        return {"count": total if rank == 0 else 0, "table": states[0]["table"], "none": None}


def make(rank=0, world_size=1, stored=None):
    return TrainingState(ReplicatedStrategy(rank, world_size), rank, world_size, stored)


def train(model, optimizer, seed):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(3):
        dtype = model.scale.dtype
        model(torch.randn(6, 4, generator=generator).to(dtype)).backward()
        optimizer.step()
        optimizer.zero_grad()


def save(world_size, build):
    """The checkpoint of ranks each of which `build(state, rank)` has filled."""
    snapshots = []
    for rank in range(world_size):
        state = make(rank, world_size)
        build(state, rank)
        snapshots.append(state.snapshot())
    return MemoryCheckpoint(snapshots)


def test_a_models_tensors_are_its_own_and_named_once():
    model = Model()
    tensors = ModelPart("model", model).tensors()
    buffers = [f"norm.{name}" for name in ("num_batches_tracked", "running_mean", "running_var")]
    parameters = ["first.bias", "first.weight", "frozen", "norm.bias", "norm.weight", "nothing", "scale", "second.bias"]
    assert sorted(tensors) == sorted([*parameters, *buffers])
    tensors["scale"].fill_(7)
    tensors["norm.running_mean"].fill_(3)
    assert model.scale.item() == 7
    assert model.norm.running_mean.tolist() == [3.0] * 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_continues_as_it_would_have(name, dtype):
    factory, arguments = OPTIMIZERS[name]
    model = Model(dtype, num_empty_rows=int(name == "Adafactor"))  # which divides by the number of elements
    optimizer = factory(model.parameters(), **copy.deepcopy(arguments))
    train(model, optimizer, seed=1)
    plain, tensors = split_tensors(OptimizerPart(optimizer, ReplicatedStrategy(0, 1)).state_dict())
    saved, text = {name: tensor.clone() for name, tensor in tensors.items()}, dump_state(plain)

    other = copy.deepcopy(model)
    resumed = factory(other.parameters(), **{**copy.deepcopy(arguments), "lr": 0.5})
    OptimizerPart(resumed, ReplicatedStrategy(0, 1)).load_state_dict(join_tensors(load_state(text), saved))
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


def test_optimizer_state_is_read_into_tensors_laid_out_like_their_parameters():
    weight = torch.ones(2, 3, 4, 4).to(memory_format=torch.channels_last).requires_grad_()
    optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
    target = OptimizerPart(optimizer, ReplicatedStrategy(0, 1)).target(
        "state/0/momentum_buffer", weight.shape, weight.dtype
    )
    assert target.stride() == weight.stride()
    assert not target.requires_grad


@pytest.mark.parametrize("sizes", [(1, 1), (1, 3), (3, 1), (3, 2)])
def test_model_optimizer_and_counts_are_restored_at_another_number_of_ranks(sizes):
    model = Model()
    optimizer = torch.optim.AdamW(model.parameters())
    train(model, optimizer, seed=1)

    def build(state, rank):
        state.add_model(model)
        state.add_optimizer(optimizer)
        state.register("counter", Counter(5))
        state.completed_steps = 17

    stored = save(sizes[0], build)
    for rank in range(sizes[1]):
        other, counter = Model(), Counter()
        state = make(rank, sizes[1], stored)
        state.add_model(other)
        resumed = torch.optim.AdamW(other.parameters())
        state.add_optimizer(resumed)
        state.register("counter", counter)
        assert state.completed_steps == 17
        assert (counter.count, counter.table.tolist()) == (5, [5.0] * 3)
        reference, its_optimizer = copy.deepcopy((model, optimizer))
        train(other, resumed, seed=2)
        train(reference, its_optimizer, seed=2)
        for value, expected in zip(other.state_dict().values(), reference.state_dict().values(), strict=True):
            assert torch.equal(value, expected)


def test_what_each_rank_keeps_returns_to_that_rank():
    stored = save(3, lambda state, rank: state.register("counter", Counter(10 + rank), per_rank=True))
    for rank in range(3):
        counter = Counter()
        make(rank, 3, stored).register("counter", counter, per_rank=True)
        assert (counter.count, counter.table.tolist()) == (10 + rank, [10.0 + rank] * 3)


def test_what_each_rank_keeps_is_merged_for_another_number_of_ranks_or_refused():
    stored = save(3, lambda state, rank: state.register("counter", SummedCounter(10 + rank), per_rank=True))
    counters = [SummedCounter() for _ in range(2)]
    for rank, counter in enumerate(counters):
        make(rank, 2, stored).register("counter", counter, per_rank=True)
    assert [counter.count for counter in counters] == [33, 0]
    with pytest.raises(RestoreError, match=r"'counter' is kept for each rank, .* 3 ranks; continue with --workers 3"):
        make(0, 2, stored).register("counter", Counter(), per_rank=True)


def test_a_checkpoint_without_a_part_leaves_the_object_alone():
    stored = save(1, lambda state, rank: state.register("other", Counter(1)))
    for per_rank in (False, True):
        counter = Counter(4)
        make(stored=stored).register("counter", counter, per_rank=per_rank)
        assert counter.count == 4


def test_a_name_is_registered_once():
    state = make()
    state.register("counter", Counter())
    with pytest.raises(ValueError, match="registered already"):
        state.register("counter", Counter())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda model: setattr(model, "added", nn.Parameter(torch.ones(2))), r"no value for model\.added"),
        (
            lambda model: setattr(model, "first", nn.Linear(5, 4)),
            r"model\.first\.weight with shape \(4, 4\).* \(4, 5\)",
        ),
        (lambda model: delattr(model, "frozen"), r"model\.frozen with shape \(2,\), the job's model has none"),
    ],
)
def test_a_model_that_has_changed_is_refused(change, message):
    stored = save(1, lambda state, rank: state.add_model(Model()))
    changed = Model()
    change(changed)
    with pytest.raises(RestoreError, match=message):
        make(stored=stored).add_model(changed)


def test_which_parameters_require_gradients_is_restored_but_not_shown_to_the_optimizer():
    def build(state, rank):
        model = Model()
        model.first.bias.requires_grad_(False)
        model.frozen.requires_grad_(True)
        state.add_model(model)

    stored, model = save(1, build), Model()
    state = make(stored=stored)
    state.add_model(model)
    with state.first_trainable():
        assert (model.first.bias.requires_grad, model.frozen.requires_grad) == (True, False)
    assert (model.first.bias.requires_grad, model.frozen.requires_grad) == (False, True)


class Connection:
    """Something that belongs to this process alone."""


@pytest.mark.parametrize("per_rank", [False, True])
def test_what_no_checkpoint_can_hold_is_found_before_one_is_due(per_rank):
    state = make()
    state.add_model(nn.Linear(1, 1))
    optimizer = torch.optim.SGD(state.model.parameters(), lr=0.1)
    state.add_optimizer(optimizer)
    state.check_savable()
    if per_rank:
        state.register("mine", _Stateful(Connection()), per_rank=True)
    else:
        optimizer.param_groups[0]["connection"] = Connection()
    with pytest.raises(StateError, match=r"connection is a Connection, which a checkpoint cannot hold"):
        state.check_savable()


class _Stateful:
    def __init__(self, value):
        self._value = value

    def state_dict(self):
        return {"connection": self._value}

    def load_state_dict(self, state):
        self._value = state["connection"]
