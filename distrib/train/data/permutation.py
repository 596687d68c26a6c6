"""Permutations of an epoch's samples: `torch.randperm` for most datasets, a keyed Feistel network for very long ones.

Both are pure functions of (number of samples, seed, epoch). The Feistel network computes any slice by itself, so that a
dataset of a billion samples costs no memory; for few samples it would not be uniform, and is not used.
"""

from __future__ import annotations

import hashlib

import numpy
import torch
from numpy.typing import NDArray

from distrib.train.process.randomness import derive_seed

MAX_RANDPERM = 2**24
"""The largest number of samples that `torch.randperm` permutes: it takes 8 bytes of memory for each."""

_NUM_ROUNDS = 6
_Words = NDArray[numpy.uint64]


def epoch_permutation(num_samples: int, seed: int, epoch: int) -> torch.Tensor:
    """The order of all samples in `epoch`: int64 [num_samples], the same on every rank."""
    generator = torch.Generator().manual_seed(derive_seed(seed, epoch))
    return torch.randperm(num_samples, generator=generator)


def feistel_slice(num_samples: int, seed: int, epoch: int, start: int, stop: int) -> torch.Tensor:
    """Positions [start, stop) of the Feistel permutation of `num_samples` samples: int64 [stop - start].

    A balanced Feistel network permutes the numbers of 2·⌈b/2⌉ bits, b being the bits that positions need; it is applied
    again to values beyond the last sample until they are samples (cycle walking, at most four times on average).
    """
    num_bits = (num_samples - 1).bit_length()
    half = numpy.uint64(-(-num_bits // 2))
    mask = numpy.uint64((1 << int(half)) - 1)
    keys = [_round_key(seed, epoch, number) for number in range(_NUM_ROUNDS)]
    values = numpy.arange(start, stop, dtype=numpy.uint64)
    outside = numpy.arange(len(values))
    while len(outside):
        found = _permute(values[outside], keys, half, mask)
        values[outside] = found
        outside = outside[found >= num_samples]
    return torch.from_numpy(values.astype(numpy.int64))


def _permute(values: _Words, keys: list[numpy.uint64], half: numpy.uint64, mask: numpy.uint64) -> _Words:
    """The Feistel network on numbers of 2·`half` bits."""
    left, right = values >> half, values & mask
    for key in keys:
        left, right = right, left ^ (_mix(right + key) & mask)
    return (left << half) | right


def _mix(words: _Words) -> _Words:
    """SplitMix64's finalizer; products are modulo 2^64."""
    words = (words ^ (words >> numpy.uint64(30))) * numpy.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> numpy.uint64(27))) * numpy.uint64(0x94D049BB133111EB)
    return words ^ (words >> numpy.uint64(31))


def _round_key(seed: int, epoch: int, number: int) -> numpy.uint64:
    """The first 8 bytes, big-endian, of SHA-256 of `SEED:EPOCH:ROUND`."""
    digest = hashlib.sha256(f"{seed}:{epoch}:{number}".encode()).digest()
    return numpy.uint64(int.from_bytes(digest[:8], "big"))
