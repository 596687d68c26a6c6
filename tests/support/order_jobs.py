"""Orders of samples, for tests of `data.order`."""

import os

import torch


def weighted(dataset, epoch, seed, num_samples=20):
    """Draws with replacement; some samples are drawn several times, some never."""
    generator = torch.Generator().manual_seed(1000 * seed + epoch)
    return torch.multinomial(torch.arange(1.0, len(dataset) + 1), num_samples, replacement=True, generator=generator)


def bucketed(dataset, epoch, seed):
    """Batches of 1 to 9 samples, as many in each epoch."""
    generator = torch.Generator().manual_seed(1000 * seed + epoch)
    indices, sizes = torch.randperm(len(dataset), generator=generator).tolist(), [1, 9, 4, 2, 7]
    return [[indices.pop() for _ in range(min(size, len(indices)))] for size in sizes]


class Curriculum:
    """Ever longer epochs, whose numbers of steps differ."""

    def __init__(self, batch_size, first=5):
        self.batch_size = batch_size
        self.first = first

    def _count(self, dataset, epoch):
        return min(len(dataset), self.first * (epoch + 1))

    def __call__(self, dataset, epoch, seed):
        return range(self._count(dataset, epoch))

    def num_steps(self, dataset, epoch, seed):
        return -(-self._count(dataset, epoch) // self.batch_size)


class Uncallable:
    """An object that is no function."""


def outside(dataset, epoch, seed):
    """Names a sample that does not exist, in the second epoch."""
    return [*range(len(dataset)), len(dataset) * epoch]


def empty(dataset, epoch, seed):
    return []


def failing(dataset, epoch, seed):
    raise LookupError("no weights yet")


def by_process(dataset, epoch, seed):
    """Differs between processes, from the second epoch on."""
    generator = torch.Generator().manual_seed(epoch and os.getpid())
    return torch.randperm(len(dataset), generator=generator)


def shrinking(dataset, epoch, seed):
    """Has fewer steps in later epochs, without announcing it."""
    return range(len(dataset) // (epoch + 1))
