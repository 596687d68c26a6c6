"""What the jobs of tests/train must compute, computed plainly: by one process and from the contracts alone."""

import hashlib

import torch


def permutation(num_samples, seed, epoch):
    """The order of an epoch's samples."""
    digest = hashlib.sha256(f"{seed}:{epoch}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    return torch.randperm(num_samples, generator=generator).tolist()


def steps_of_epoch(num_samples, batch_size):
    """The number of steps of an epoch."""
    return len(range(0, num_samples, batch_size))


def global_batch(num_samples, batch_size, seed, global_step):
    """The samples of a global step, counted from 0."""
    epoch, step = divmod(global_step, steps_of_epoch(num_samples, batch_size))
    return permutation(num_samples, seed, epoch)[step * batch_size : (step + 1) * batch_size]


def part(items, number, num_parts):
    """Part ⌊r·m/W⌋ … ⌊(r+1)·m/W⌋ of a list of m items."""
    return items[number * len(items) // num_parts : (number + 1) * len(items) // num_parts]


def mean_loss(model, dataset, ids, loss):
    """Σ loss·weight / Σ weight, one sample at a time; `loss(model, sample)` gives both of a batch of one sample."""
    total, total_weight = 0.0, 0.0
    for index in ids:
        value, weight = loss(model, torch.utils.data.default_collate([dataset[index]]))
        if weight:
            total, total_weight = total + value * weight, total_weight + weight
    return (total / total_weight if total_weight else None), total_weight


def gradient(model, dataset, ids, loss):
    """The gradient of `mean_loss` by parameter; zeros where nothing has weight."""
    model.zero_grad()
    value, _ = mean_loss(model, dataset, ids, loss)
    if value is None:
        return {name: torch.zeros_like(parameter) for name, parameter in model.named_parameters()}
    value.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def flat(tensors):
    """All tensors of a dict as one vector."""
    return torch.cat([tensors[name].flatten() for name in sorted(tensors)])


def relative_difference(ours, theirs):
    """The 2-norm of the difference of two dicts of tensors, relative to the second."""
    return float((flat(ours) - flat(theirs)).norm() / flat(theirs).norm())
