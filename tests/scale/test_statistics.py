"""Bootstrap intervals have the expected coverage and account for drift between repeats."""

import random

import pytest

from distrib.scale.statistics import bootstrap_medians, interval


def test_the_interval_holds_the_median_it_was_drawn_from():
    source = random.Random(0)
    held = 0
    for _ in range(40):
        low, high = interval(bootstrap_medians([[source.gauss(1, 0.1) for _ in range(40)] for _ in range(3)]))
        held += low <= 1 <= high
    assert held >= 34


def test_drift_between_repeats_widens_the_interval():
    steady = interval(bootstrap_medians([[1.0, 1.1, 1.2]] * 3))
    drifting = interval(bootstrap_medians([[1.0, 1.1, 1.2], [2.0, 2.1, 2.2], [3.0, 3.1, 3.2]]))
    assert drifting[1] - drifting[0] > 5 * (steady[1] - steady[0])


def test_repeats_may_differ_in_length():
    low, high = interval(bootstrap_medians([[1.0], [1.0, 1.0, 1.0], []]))
    assert (low, high) == pytest.approx((1.0, 1.0))
