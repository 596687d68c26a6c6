"""The keyed permutation of very long datasets: a bijection, uniform, and computed for any slice alone."""

import hashlib
import time

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import distrib.train.data.order as order_module
from distrib.train.data.order import Shuffle
from distrib.train.data.permutation import MAX_RANDPERM, epoch_permutation, feistel_slice

JUST_ABOVE = MAX_RANDPERM + 1
seeds = st.integers(0, 2**63 - 1)
epochs = st.integers(0, 1000)


def naive(num_samples, seed, epoch, position):
    """The contract's definition, one position at a time with Python's integers."""
    half = -(-(num_samples - 1).bit_length() // 2)
    keys = [int.from_bytes(hashlib.sha256(f"{seed}:{epoch}:{r}".encode()).digest()[:8], "big") for r in range(6)]

    def mix(z):
        z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) % 2**64
        z = ((z ^ z >> 27) * 0x94D049BB133111EB) % 2**64
        return z ^ z >> 31

    while True:
        left, right = position >> half, position % 2**half
        for key in keys:
            left, right = right, left ^ (mix((right + key) % 2**64) % 2**half)
        position = left * 2**half + right
        if position < num_samples:
            return position


def test_it_begins_with_the_values_of_the_contract():
    assert feistel_slice(JUST_ABOVE, 0, 0, 0, 4).tolist() == [9861976, 5113089, 9282996, 1013664]


@given(st.integers(2, 2**50), seeds, epochs, st.data())
def test_it_is_that_of_the_contract(num_samples, seed, epoch, data):
    start = data.draw(st.integers(0, num_samples - 1))
    stop = min(num_samples, start + 5)
    expected = [naive(num_samples, seed, epoch, position) for position in range(start, stop)]
    assert feistel_slice(num_samples, seed, epoch, start, stop).tolist() == expected


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 2**20), seeds, epochs)
def test_every_sample_comes_once(num_samples, seed, epoch):
    found = feistel_slice(num_samples, seed, epoch, 0, num_samples)
    assert torch.equal(found.sort().values, torch.arange(num_samples))


@settings(max_examples=30, deadline=None)
@given(st.integers(2**24, 2**40), seeds, epochs, st.data())
def test_no_sample_comes_twice_in_slices_of_long_datasets(num_samples, seed, epoch, data):
    starts = data.draw(st.lists(st.integers(0, num_samples - 3000), min_size=1, max_size=4))
    positions = sorted({position for start in starts for position in range(start, start + 3000)})
    pieces = [feistel_slice(num_samples, seed, epoch, start, start + 3000) for start in starts]
    found = torch.cat(pieces).unique()
    assert len(found) == len(positions)
    assert int(found.min()) >= 0
    assert int(found.max()) < num_samples


@pytest.mark.timeout(120)
def test_just_above_the_limit_it_is_uniform():
    """Chi-square of values in bins, of neighboring pairs in bins and of differences of neighbors: within 5 sigma."""
    num_taken, num_bins = 2_000_000, 1000
    start = 5_000_000
    values = feistel_slice(JUST_ABOVE, 7, 3, start, start + num_taken).numpy()

    def sigmas(counts):
        expected = counts.sum() / counts.size
        chi_square = ((counts - expected) ** 2 / expected).sum()
        return (chi_square - (counts.size - 1)) / (2 * (counts.size - 1)) ** 0.5

    bins = values * num_bins // JUST_ABOVE
    assert abs(sigmas(numpy.bincount(bins, minlength=num_bins))) < 5  # sampled without replacement: a little below 0
    pairs = bins[:-1] // 10 * 100 + bins[1:] // 10
    assert abs(sigmas(numpy.bincount(pairs, minlength=10_000))) < 5
    differences = (values[1:] - values[:-1]) % JUST_ABOVE
    assert abs(sigmas(numpy.bincount(differences * num_bins // JUST_ABOVE, minlength=num_bins))) < 5
    assert int((differences == 1).sum()) < 10  # neighbors in the dataset are neighbors in the order once in 2^24


@pytest.mark.timeout(60)
def test_a_slice_of_a_billion_samples_costs_what_its_length_costs():
    order = Shuffle(10**9, 4096, seed=0)
    began = time.perf_counter()
    for step in (0, 100, 200_000, order.num_steps(0) - 1):
        assert 0 < len(order.batch(5, step)) <= 4096
    assert time.perf_counter() - began < 2  # about 6 ms; a permutation would take minutes


def test_the_permutation_changes_only_beyond_the_limit(monkeypatch):
    monkeypatch.setattr(order_module, "MAX_RANDPERM", 100)
    assert torch.equal(Shuffle(100, 100, 3).batch(1, 0), epoch_permutation(100, 3, 1))
    assert torch.equal(Shuffle(101, 101, 3).batch(1, 0), feistel_slice(101, 3, 1, 0, 101))
