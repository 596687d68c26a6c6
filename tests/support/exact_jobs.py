"""What the jobs of tests/train are made of: small, in float64, and recording what they do."""

import random
import sys
from pathlib import Path

import numpy
import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import Dataset
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

NUM_FEATURES = 6
NUM_CLASSES = 3
NUM_TOKENS = 4


class Points(Dataset):
    """Points of three classes, so many times the same for the same seed; `poisoned` names one with a NaN."""

    def __init__(self, num_samples, seed=0, dtype="float64", poisoned=None):
        generator = torch.Generator().manual_seed(seed)
        self.targets = torch.randint(NUM_CLASSES, (num_samples,), generator=generator)
        centers = torch.randn(NUM_CLASSES, NUM_FEATURES, generator=torch.Generator().manual_seed(99))
        noise = torch.randn(num_samples, NUM_FEATURES, generator=generator, dtype=torch.float64)
        self.inputs = (centers[self.targets] + noise).to(getattr(torch, dtype))
        if poisoned is not None:
            self.inputs[poisoned, 0] = float("nan")

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        return self.inputs[index], self.targets[index]


class Augmented(Points):
    """Points that are moved at random, by each of the three generators that users use."""

    def __getitem__(self, index):
        inputs, target = super().__getitem__(index)
        noise = 0.1 * torch.randn(NUM_FEATURES, dtype=torch.float64)
        return inputs + noise + 0.1 * numpy.random.normal() + 0.1 * random.gauss(), target


class Unreadable(Points):
    """A dataset that cannot read one of its samples."""

    def __getitem__(self, index):
        if index == 5:
            raise KeyError("no file for sample 5")
        return super().__getitem__(index)


class Sentences(Dataset):
    """Sequences of tokens, some masked; `weightless` names samples all of whose tokens are masked."""

    def __init__(self, num_samples, weightless=(), seed=0):
        points = Points(num_samples * NUM_TOKENS, seed)
        self.inputs = points.inputs.view(num_samples, NUM_TOKENS, NUM_FEATURES)
        lengths = 1 + torch.arange(num_samples) * 7 % NUM_TOKENS
        lengths[list(weightless)] = 0
        self.mask = torch.arange(NUM_TOKENS) < lengths[:, None]
        self.targets = torch.where(self.mask, points.targets.view(num_samples, NUM_TOKENS), -1)

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        return {"inputs": self.inputs[index], "targets": self.targets[index], "mask": self.mask[index]}


def token_mean(model, batch):
    """The mean loss over the tokens that count; NaN, 0/0, where none does."""
    outputs = model(batch["inputs"]).flatten(0, -2)
    targets = batch["targets"].flatten()
    mask = batch["mask"].flatten()
    losses = nn.functional.cross_entropy(outputs, targets.clamp(min=0), reduction="none")
    weight = mask.sum()
    return {"loss": (losses * mask).sum() / weight, "weight": weight, "outputs": outputs, "targets": targets}


def safe_token_mean(model, batch):
    """The same with a loss of 0 where no token counts, whose gradient is NaN all the same."""
    result = token_mean(model, batch)
    return {**result, "loss": torch.where(result["weight"] > 0, result["loss"], 0.0)}


def scaled_loss(model, batch, scale):
    """A loss so large that fp16 gradients overflow until the scaler has gone down far enough."""
    inputs, targets = batch
    return nn.functional.cross_entropy(model(inputs), targets) * scale


def no_tensor(model, batch):
    """A step that gives a number."""
    return 1.0


def no_loss(model, batch):
    """A step that forgets the loss."""
    return {"outputs": model(batch[0])}


class Mlp(nn.Module):
    """A smooth network, so that training it is stable: rounding is not amplified."""

    def __init__(self, hidden=8, dropout=0.0, dtype="float64"):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(NUM_FEATURES, hidden), nn.Tanh(), nn.Dropout(dropout), nn.Linear(hidden, NUM_CLASSES)
        ).to(getattr(torch, dtype))

    def forward(self, inputs):
        return self.layers(inputs)


class Unused(Mlp):
    """With parameters that no step uses."""

    def __init__(self):
        super().__init__()
        self.unused = nn.Linear(2, 2).double()


class Compiled(Mlp):
    """Compiles its layers, in a process that has kept the compiler out until then."""

    def __init__(self):
        super().__init__()
        self.layers.compile(backend="eager")


class Normalized(nn.Module):
    """With BatchNorm after a frozen part that its user has put into evaluation mode for good."""

    def __init__(self):
        super().__init__()
        self.frozen = nn.Sequential(nn.Linear(NUM_FEATURES, 8), nn.Dropout(0.5)).double().eval().requires_grad_(False)
        self.head = nn.Sequential(nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, NUM_CLASSES)).double()

    def forward(self, inputs):
        if any(module.training for module in self.frozen.modules()):
            raise RuntimeError("the frozen part was put into training mode")
        if any(module.training != self.training for module in self.head.modules()):
            raise RuntimeError("the head is not in the mode of the model")
        return self.head(self.frozen(inputs))


class Faulty(Mlp):
    """Raises an error of the user's own in the third forward pass of rank 1."""

    def __init__(self):
        super().__init__()
        self.num_calls = 0

    def forward(self, inputs):
        self.num_calls += 1
        if self.num_calls == 3 and dist.get_rank() == 1:
            raise ValueError("no such label: 7")
        return super().forward(inputs)


class FirstLogits(Metric):
    """Collects a value of every sample, in order: what a metric of the user's own with a list as state looks like."""

    full_state_update = False

    def __init__(self):
        super().__init__()
        self.add_state("values", [], dist_reduce_fx="cat")

    def update(self, outputs, targets):
        self.values.append(outputs[:, 0].double())

    def compute(self):
        return dim_zero_cat(self.values)


def recording(model, folder, num_steps, optimizer="SGD", only="", **args):
    """An optimizer that keeps the weights and gradients before each of its steps; writes them from step `num_steps` on.

    Args:
        model: The model.
        folder: Where the file of each rank goes.
        num_steps: How many steps it must have seen.
        optimizer: The class of torch.optim.
        only: What the names of the parameters that it updates start with.
        args: For the class.
    """
    updated = [parameter for name, parameter in model.named_parameters() if name.startswith(only)]
    result = getattr(torch.optim, optimizer)(updated, **args)
    steps = []

    def record(optimizer, *_):
        names = dict(model.named_parameters())
        weights = {name: parameter.detach().clone() for name, parameter in names.items()}
        gradients = {name: None if p.grad is None else p.grad.clone() for name, p in names.items()}
        steps.append({"weights": weights, "gradients": gradients, "lr": optimizer.param_groups[0]["lr"]})
        if len(steps) >= num_steps:
            is_compiler_loaded = any(name.startswith(("sympy", "torch._dynamo.")) for name in sys.modules)
            facts = {"model": type(model).__name__, "is_compiler_loaded": is_compiler_loaded}
            torch.save({"steps": steps, **facts}, Path(folder) / f"rank-{dist.get_rank()}.pt")

    result.register_step_pre_hook(record)
    return result
