"""What every strategy must do, as functions of one rank; see tests/train/strategy/test_contract.py."""

import copy

import torch
import torch.distributed as dist
from torch import nn

from distrib.job.spec.job import JobSpec
from distrib.train.settings import TrainingSettings
from distrib.train.state import TrainingState
from distrib.train.strategy.base import StrategySettings
from distrib.train.strategy.registry import STRATEGIES
from tests.support.memory_checkpoint import MemoryCheckpoint

NUM_FEATURES = 6
GLOBAL_BATCH = 12


def make_spec(**sections):
    """A job's spec with some sections."""
    spec = {
        "name": "job",
        "model": "torch.nn:Linear",
        "data": {"train": "exact_jobs:Points", "batch_size": GLOBAL_BATCH},
        "loss": "torch.nn:CrossEntropyLoss",
        "optimizer": "torch.optim:SGD",
        "train": {"steps": 1},
    }
    return JobSpec.model_validate({**spec, **sections})


def make_strategy(name, rank, world_size, **sections):
    """A strategy of one rank on the CPU."""
    return STRATEGIES[name](
        StrategySettings(TrainingSettings.of_job(make_spec(**sections)), rank, world_size, torch.device("cpu"))
    )


class Network(nn.Module):
    """A smooth network with buffers and a frozen layer."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(5)
        self.frozen = nn.Linear(NUM_FEATURES, NUM_FEATURES).requires_grad_(False)
        self.layers = nn.Sequential(nn.Linear(NUM_FEATURES, 30), nn.Tanh(), nn.BatchNorm1d(30), nn.Linear(30, 3))
        self.double()

    def forward(self, inputs):
        return self.layers(self.frozen(inputs))


def inputs_of(step):
    """The global batch of a step."""
    return torch.randn(GLOBAL_BATCH, NUM_FEATURES, dtype=torch.float64, generator=torch.Generator().manual_seed(step))


def loss_of(model, inputs):
    return model.eval()(inputs).square().mean()


def backward(strategy, wrapped, step, rank, world_size, num_parts=1, name="model"):
    """The gradient of the mean loss over the global batch, accumulated in parts."""
    parts = inputs_of(step).chunk(world_size)[rank].chunk(num_parts)
    for number, part in enumerate(parts):
        if number < num_parts - 1:
            with strategy.without_sync(wrapped):
                (loss_of(wrapped, part) / num_parts).backward()
        else:
            (loss_of(wrapped, part) / num_parts).backward()
    strategy.finish_backward(name)


def whole(tensor):
    """A tensor, put together if the strategy has spread it."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def gradients(model):
    return {name: whole(p.grad).clone() for name, p in model.named_parameters() if p.grad is not None}


def check_gradients(rank, world_size, name, num_parts):
    """The gradients by name, those of a single process, and the norm that clipping returns."""
    strategy, model = make_strategy(name, rank, world_size), Network()
    wrapped = strategy.wrap(model, "model")
    backward(strategy, wrapped, 0, rank, world_size, num_parts)
    found, reference = gradients(model), Network()
    loss_of(reference, inputs_of(0)).backward()
    norm = whole(strategy.clip(list(model.parameters()), 0.01))
    clipped = gradients(model)
    strategy.gradient_buckets(wrapped), strategy.gradient_bytes(wrapped)
    return found, gradients(reference), float(norm), clipped


def check_without_sync(rank, world_size, name):
    """The gradients of a pass without synchronization: each rank's own."""
    strategy, model = make_strategy(name, rank, world_size), Network()
    wrapped = strategy.wrap(model, "model")
    mine = inputs_of(0).chunk(world_size)[rank]
    with strategy.without_sync(wrapped):
        loss_of(wrapped, mine).backward()
    found, reference = gradients(model), Network()
    loss_of(reference, mine).backward()
    return found, gradients(reference)


def check_buffers(rank, world_size, name):
    """The buffers after rank 0's were given to all."""
    strategy, model = make_strategy(name, rank, world_size), Network()
    strategy.wrap(model, "model")
    model.layers[2].running_mean.fill_(rank + 1)
    strategy.sync_buffers(model)
    return model.layers[2].running_mean.tolist()


def check_broadcast(rank, world_size, name):
    """The state of a model that is not wrapped, and whose weights only rank 0 has as they were built."""
    strategy, model = make_strategy(name, rank, world_size), Network().to(memory_format=torch.channels_last)
    model.scale = torch.nn.Parameter(torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last), False)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.fill_(rank)
    strategy.broadcast(model)
    return [set(tensor.flatten().tolist()) for tensor in model.state_dict().values()]


def check_full_weights(rank, world_size, name):
    """The weights that this rank has to write, and the model's state."""
    strategy, model = make_strategy(name, rank, world_size), Network()
    strategy.wrap(model, "model")
    weights = strategy.full_weights(model)
    return None if weights is None else {key: whole(value) for key, value in weights.items()}, model.state_dict()


def check_unfreezing(rank, world_size, name):
    """Gradients of a step during which a layer is unfrozen, of the next one, and those of a single process."""
    strategy, model, reference = make_strategy(name, rank, world_size), Network(), Network()
    wrapped = strategy.wrap(model, "model")
    model.frozen.register_forward_pre_hook(lambda module, _: module.requires_grad_(True) and None)
    reference.frozen.requires_grad_(True)
    results = []
    for step in range(2):
        if strategy.is_outdated("model"):
            wrapped = strategy.wrap(model, "model")
        backward(strategy, wrapped, step, rank, world_size)
        loss_of(reference, inputs_of(step)).backward()
        results.append((gradients(model), gradients(reference)))
        model.zero_grad()
        reference.zero_grad()
    return results


def train(state, steps, rank, world_size):
    for step in steps:
        state.rewrap_outdated()
        backward(state.strategy, state.wrapped["model"], step, rank, world_size)
        state.optimizer.step()
        state.model.zero_grad()
        state.completed_steps += 1


def make_state(name, rank, world_size, stored=None, **sections):
    state = TrainingState(make_strategy(name, rank, world_size, **sections), rank, world_size, stored)
    state.add_model(Network())
    with state.first_trainable():
        optimizer = torch.optim.AdamW(state.model.parameters(), lr=0.05)
    state.add_optimizer(optimizer)
    return state


def weights(state):
    return {key: whole(value).clone() for key, value in state.model.state_dict().items()}


def train_and_save(rank, world_size, name, first, second, stored=None):
    """Trains, saves, and trains on: the snapshots of all ranks, and the weights after the second part."""
    state = make_state(name, rank, world_size, stored)
    train(state, first, rank, world_size)
    snapshots = [None] * world_size
    dist.all_gather_object(snapshots, copy.deepcopy(state.snapshot()))
    train(state, second, rank, world_size)
    return MemoryCheckpoint(snapshots), weights(state)


def restore_and_train(rank, world_size, name, stored, steps):
    """Restores a checkpoint and trains on: the weights."""
    state = make_state(name, rank, world_size, stored)
    train(state, steps, rank, world_size)
    return weights(state)


def check_share(rank, world_size, name):
    """The names that this rank saves of the model, and all names."""
    state = make_state(name, rank, world_size)
    backward(state.strategy, state.wrapped["model"], 0, rank, world_size)
    state.optimizer.step()
    snapshot = state.snapshot()
    return list(snapshot.tensors), [f"model/{key}" for key in state.model.state_dict()]


class Branching(nn.Module):
    """A network that uses its layers otherwise from step to step.

    Args:
        kind: `plain`; `alternating`: gradients become ready in another order at every second step; `unused`: every
            second step leaves out a layer; `unfreezing`: a layer is trained from step 3 on; `freezing`: until then.
    """

    def __init__(self, kind):
        super().__init__()
        torch.manual_seed(5)
        self.kind = kind
        self.first, self.second, self.third = (nn.Linear(NUM_FEATURES, NUM_FEATURES) for _ in range(3))
        self.last = nn.Linear(NUM_FEATURES, 3)
        self.double()
        if kind == "unfreezing":
            self.second.requires_grad_(False)

    def forward(self, inputs, step):
        if self.kind == "unfreezing" and step >= 3:
            self.second.requires_grad_(True)
        layers = [self.first, self.second, self.third]
        if self.kind == "alternating" and step % 2:
            layers.reverse()
        if self.kind == "unused" and step % 2:
            layers.remove(self.second)
        for layer in layers:
            inputs = torch.tanh(layer(inputs))
        return self.last(inputs)


def check_resuming(rank, world_size, kind, num_steps, cuts):
    """For each step of `cuts` whether a training resumed there ends with the same bits, with DDP's order and without.

    Each rank's loss is its own, so that sums in another order differ.
    """

    def build(stored=None):
        ddp = {"bucket_mb": 0.0004, "find_unused_parameters": kind == "unused"}
        state = TrainingState(make_strategy("ddp", rank, world_size, ddp=ddp), rank, world_size, stored)
        state.add_model(Branching(kind))
        with state.first_trainable():
            optimizer = torch.optim.SGD(state.model.parameters(), lr=0.05, momentum=0.9)
        state.add_optimizer(optimizer)
        return state

    def run(state, end, saved=None):
        for step in range(state.completed_steps, end):
            state.rewrap_outdated()
            inputs = inputs_of(step).chunk(world_size)[rank]
            (state.wrapped["model"](inputs, step).square().mean() * 10 ** (rank - 1)).backward()
            state.strategy.finish_backward("model")
            state.optimizer.step()
            state.model.zero_grad()
            state.completed_steps = step + 1
            if kind == "freezing" and state.completed_steps == 3:  # as a callback does, before the step's checkpoint
                state.model.second.requires_grad_(False)
            if saved is not None and step + 1 in cuts:
                saved.append(copy.deepcopy(state.snapshot()))
        return weights(state)

    saved = []
    expected = run(build(), num_steps, saved)
    gathered = [None] * world_size
    dist.all_gather_object(gathered, saved)
    found = []
    for number in range(len(cuts)):
        snapshots = [snapshots[number] for snapshots in gathered]
        with_order = run(build(MemoryCheckpoint(snapshots)), num_steps)
        for snapshot in snapshots:
            snapshot.values["parts"]["strategy"]["ready_orders"] = {}
        without = run(build(MemoryCheckpoint(snapshots)), num_steps)
        found.append([all(torch.equal(one[key], expected[key]) for key in expected) for one in (with_order, without)])
    return found
