"""Fits recover known constants from noisy measurements."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distrib.scale.all_reduce import Link, ring_seconds
from distrib.scale.fit import Timing, fit_compute, fit_growth, fit_line, fit_ring

SIZES = [4096 * 4**power for power in range(7)]


@settings(deadline=None)
@given(st.floats(1e-5, 1e-3), st.floats(1e-10, 1e-7), st.integers(0, 1000))
def test_planted_links_come_back_within_a_tenth(alpha, beta, seed):
    """If the sweep shows both terms: α in its smallest message, β in its largest."""
    noise = random.Random(seed)
    sizes = [alpha / beta * 10**exponent for exponent in (-2, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2)]
    timings = [
        Timing(workers, size, ring_seconds(size, workers, Link(alpha, beta)) * noise.uniform(0.95, 1.05))
        for workers in (2, 4)
        for size in sizes
        for _ in range(5)
    ]
    fitted = fit_ring(timings)
    assert fitted.link.alpha_seconds == pytest.approx(alpha, rel=0.1)
    assert fitted.link.beta_seconds_per_byte == pytest.approx(beta, rel=0.1)
    assert fitted.relative_error < 0.05


def test_a_large_message_that_is_late_does_not_move_the_cost_of_a_message():
    link = Link(1e-3, 1e-9)
    timings = [Timing(2, size, ring_seconds(size, 2, link)) for size in SIZES]
    timings[-1] = Timing(2, SIZES[-1], timings[-1].seconds * 1.1)
    assert fit_ring(timings).link.alpha_seconds == pytest.approx(1e-3, rel=0.05)


@pytest.mark.parametrize("seed", range(20))
def test_late_messages_do_not_move_the_bandwidth(seed):
    """As on a link of 100 Mbit/s: small messages take from twice to ten times as long as they should."""
    noise = random.Random(seed)
    link, sizes = Link(3e-4, 8e-8), [1024 * 4**power for power in range(6)]
    timings = [
        Timing(
            workers,
            size,
            ring_seconds(size, workers, link) * (noise.uniform(2, 10) if size < 2**15 else noise.uniform(0.98, 1.05)),
        )
        for workers in (2, 4)
        for size in sizes
        for _ in range(2)
    ]
    assert fit_ring(timings).link.beta_seconds_per_byte == pytest.approx(8e-8, rel=0.1)


def test_no_constant_is_negative():
    line = fit_line([(1, 1, 1.0), (1, 2, 3.0), (1, 3, 5.0)])
    assert line.intercept == 0
    assert line.slope > 0


def test_one_batch_size_cannot_separate_a_fixed_cost():
    assert fit_compute([(32, 0.1), (32, 0.1)]).slope == pytest.approx(0.1 / 32)
    line = fit_compute([(32, 0.1), (16, 0.06)])
    assert line.intercept == pytest.approx(0.02)


def test_growth_with_the_workers():
    line = fit_growth([(2, 3.0), (4, 5.0), (8, 9.0)])
    assert (line.intercept, line.slope) == pytest.approx((1.0, 1.0))


def test_nothing_to_fit_is_an_error():
    with pytest.raises(ValueError, match="no positive measurement"):
        fit_ring([Timing(1, 100, 0.1)])
