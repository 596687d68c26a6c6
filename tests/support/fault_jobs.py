"""What the jobs of tests/train/test_faults.py are made of: situations in which training goes wrong without a word."""

import os
import random
import warnings

import numpy
import torch
from torch import nn
from torch.utils.data import Dataset
from torchmetrics import Metric

CLASSES, FEATURES = 3, 4


class Points(Dataset):
    """Points of three classes, in float64; some targets, but not those of `spared`, may be ones that are ignored."""

    def __init__(self, num_samples=22, seed=0, ignored=None, spared=()):
        generator = torch.Generator().manual_seed(seed)
        self.inputs = torch.randn(num_samples, FEATURES, generator=generator, dtype=torch.float64)
        self.targets = torch.randint(CLASSES, (num_samples,), generator=generator)
        if ignored is not None:
            chosen = torch.rand(num_samples, generator=generator) < 0.6
            chosen[list(spared)] = False
            self.targets[chosen] = ignored

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        return self.inputs[index], self.targets[index]


SHIFT = random.random()
"""Drawn at import."""


class Drawn(Points):
    """Draws its samples from the global generators, and keeps a file open, so that each rank builds its own."""

    def __init__(self):
        super().__init__()
        self._descriptor = os.open(__file__, os.O_RDONLY)
        chosen = random.sample(range(len(self.targets)), len(self.targets) // 2)
        self.inputs[chosen] += SHIFT + torch.from_numpy(numpy.random.rand(len(chosen), FEATURES))


class Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(FEATURES, CLASSES).double()

    def forward(self, inputs):
        return self.layer(inputs)


class Growing(Linear):
    """Keeps tables as long as the largest input needs, so that ranks have other sizes; one is part of its state."""

    def __init__(self):
        super().__init__()
        self.register_buffer("table", torch.ones(1, dtype=torch.float64), persistent=False)
        self.register_buffer("kept", None)

    def forward(self, inputs):
        length = 1 + int(inputs.abs().max() * 10)
        if len(self.table) < length:
            self.table = torch.ones(length, dtype=torch.float64)
        if self.kept is None or len(self.kept) < length:
            self.kept = torch.full((length,), 2.0, dtype=torch.float64)
        return super().forward(inputs * self.table[-1] * self.kept[-1])


class Counting(Linear):
    """Counts its steps in a plain attribute, as warm-ups do, and notes its batch size once."""

    def __init__(self):
        super().__init__()
        self.num_steps = 0
        self.batch_size = None

    def forward(self, inputs):
        self.batch_size = self.batch_size or len(inputs)
        self.num_steps += self.training
        return super().forward(inputs) * min(1.0, self.num_steps / 4)


class Frozen(Linear):
    def __init__(self):
        super().__init__()
        self.requires_grad_(False)


class Sometimes(Linear):
    """Has a layer that only some passes use."""

    def __init__(self):
        super().__init__()
        self.other = nn.Linear(FEATURES, CLASSES).double()
        self.num_passes = 0

    def forward(self, inputs):
        self.num_passes += 1
        return super().forward(inputs) + (self.other(inputs) if self.num_passes % 2 else 0)


class Weighted(nn.CrossEntropyLoss):
    def __init__(self):
        super().__init__(weight=torch.tensor([0.1, 10.0, 2.0], dtype=torch.float64))


def summed(outputs, targets):
    return nn.functional.cross_entropy(outputs, targets, reduction="sum")


class Proxies(nn.Module):
    """A loss with a learnt point for each class, and a count of what it has seen."""

    def __init__(self):
        super().__init__()
        self.points = nn.Parameter(torch.randn(CLASSES, CLASSES, dtype=torch.float64))
        self.register_buffer("seen", torch.zeros((), dtype=torch.float64))

    def forward(self, outputs, targets):
        if self.training:
            self.seen += len(targets)
        return nn.functional.cross_entropy(-torch.cdist(outputs, self.points), targets)


class Repeat:
    """A collator that repeats some samples; `weight` says how many there are then."""

    def __init__(self, says_so):
        if says_so:
            self.weight = lambda batch: len(batch[1])

    def __call__(self, samples):
        repeated = [*samples, *(sample for sample in samples if sample[0][0] > 0.3)]
        return torch.stack([x for x, _ in repeated]), torch.stack([y for _, y in repeated])


def squared(outputs, targets):
    return (outputs.sum(1) - targets).square().mean()


class Share(Metric):
    """The share of the first class, as a mean, and how many samples there were, outside of the states."""

    def __init__(self):
        super().__init__()
        self.add_state("share", torch.zeros((), dtype=torch.float64), dist_reduce_fx="mean")
        self.num_seen = 0

    def update(self, outputs, targets):
        before, self.num_seen = self.num_seen, self.num_seen + len(targets)
        self.share = (self.share * before + (outputs.argmax(1) == 0).sum()) / self.num_seen

    def reset(self):
        super().reset()
        self.num_seen = 0

    def compute(self):
        return self.share


class Holding(Linear):
    """Has a buffer that cannot be handled."""

    def __init__(self, kind):
        super().__init__()
        buffers = {
            "expanded": lambda: torch.ones(1).expand(3),
            "sparse": lambda: torch.eye(3).to_sparse(),
            "short": lambda: torch.zeros(3).to(torch.float8_e4m3fn),
        }
        self.register_buffer("held", buffers[kind]())


def parallel():
    return nn.DataParallel(Linear())


class Freezing(Linear):
    """Freezes, or unfreezes, its bias in a forward pass."""

    def __init__(self, at, trains_first):
        super().__init__()
        self.layer.bias.requires_grad_(trains_first)
        self._at, self._num_passes = at, 0

    def forward(self, inputs):
        self._num_passes += self.training
        if self.training and self._num_passes == self._at:
            self.layer.bias.requires_grad_(not self.layer.bias.requires_grad)
        return super().forward(inputs)


def backward(model, batch):
    loss = nn.functional.cross_entropy(model(batch[0]), batch[1])
    loss.backward(retain_graph=True)
    return loss


class Scaled(Linear):
    """Divides by the largest number that it has seen in training, a plain number in its extra state."""

    def __init__(self):
        super().__init__()
        self.largest = 1.0

    def get_extra_state(self):
        return {"largest": self.largest}

    def set_extra_state(self, state):
        self.largest = state["largest"]

    def forward(self, inputs):
        if self.training:
            self.largest = max(self.largest, float(inputs.abs().max()))
        return super().forward(inputs / self.largest)


def pretrained():
    """A model as `from_pretrained` gives it."""
    return nn.Sequential(nn.Dropout(0.5), Linear()).eval()


def silent(model, batch):
    return {"loss": nn.functional.cross_entropy(model(batch[0]), batch[1])}


def misspelled(model, batch):
    return {"loss": model(batch[0]).mean(), "wieght": 3}


def ignoring(model, batch):
    loss = nn.functional.cross_entropy(model(batch[0]), batch[1], ignore_index=255)
    return {"loss": loss, "log": {"ignored": (batch[1] == 255).double().mean()}}


def detached(model, batch):
    return nn.functional.cross_entropy(model(batch[0]), batch[1]).detach()


OUTSIDE = nn.Parameter(torch.ones((), dtype=torch.float64))


def with_outside(model, batch):
    return nn.functional.cross_entropy(model(batch[0]) * OUTSIDE, batch[1])


class Nudged(Linear):
    """Rank 1 changes one of its weights by 1e-6 in its fourth step."""

    def __init__(self):
        super().__init__()
        self._num_steps = 0

    def forward(self, inputs):
        self._num_steps += self.training
        if self._num_steps == 4 and os.environ["RANK"] == "1":
            with torch.no_grad():
                self.layer.weight[0, 0] += 1e-6
        return super().forward(inputs)


def with_own_optimizer(model, batch):
    """Makes an update of its own from each rank's own samples."""
    inputs, targets = batch
    own = getattr(model, "module", model)
    loss = nn.functional.cross_entropy(own(inputs), targets)
    with torch.no_grad():
        for parameter, gradient in zip(
            own.parameters(), torch.autograd.grad(loss, list(own.parameters())), strict=True
        ):
            parameter -= 1e-3 * gradient
    return nn.functional.cross_entropy(model(inputs), targets)


class LongerOnRank1(Points):
    """As if rank 1's host had more files."""

    def __len__(self):
        return len(self.targets) - (os.environ.get("RANK") != "1")


class OtherOnRank1(Points):
    """As if rank 1's host had other files."""

    def __getitem__(self, index):
        inputs, target = super().__getitem__(index)
        return inputs + (os.environ.get("RANK") == "1"), target


class OwnGenerator(Points):
    """Augments with random numbers that depend on the process."""

    def __init__(self):
        super().__init__()
        self._generator = numpy.random.default_rng()

    def __getitem__(self, index):
        inputs, target = super().__getitem__(index)
        return inputs + 0.01 * self._generator.random(), target


class Warning(Linear):
    """Warns in each forward pass: on all ranks, with a number of its own, and of something else on ranks 1 and 2."""

    def forward(self, inputs):
        rank = os.environ.get("RANK")
        warnings.warn(f"{inputs.sum().item()} is the sum of the batch on rank {rank}", stacklevel=1)
        if rank != "0":
            warnings.warn("this host has no fast kernel", stacklevel=1)
        return super().forward(inputs)


class WiderOnRank1(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(FEATURES, 4 if os.environ.get("RANK") == "1" else CLASSES).double()

    def forward(self, inputs):
        return self.layer(inputs)


class ReorderedOnRank1(nn.Module):
    """Two layers alike, whose order in the model is not the same on all ranks."""

    def __init__(self):
        super().__init__()
        names = ["left", "right"] if os.environ.get("RANK") != "1" else ["right", "left"]
        self.layers = nn.ModuleDict({name: nn.Linear(FEATURES, CLASSES).double() for name in names})

    def forward(self, inputs):
        return self.layers["left"](inputs) + self.layers["right"](inputs)


class Noisy(torch.optim.SGD):
    """Adds noise to each update, as stochastic gradient Langevin dynamics does."""

    def __init__(self, params):
        super().__init__(params, lr=0.1)

    @torch.no_grad()
    def step(self, closure=None):
        super().step(closure)
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.add_(torch.randn_like(parameter), alpha=0.01)
