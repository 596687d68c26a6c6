"""Fits of a cost model's constants to measurements, minimizing relative errors."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from distrib.scale.all_reduce import Link

_ITERATIONS = 50
_TINY = 1e-3
_NORMAL = 1.4826
"""Ratio of the standard deviation to the median absolute deviation of a normal distribution."""


@dataclass(frozen=True)
class Line:
    """y ≈ intercept·u + slope·v, both factors non-negative.

    Attributes:
        intercept: The factor of u.
        slope: The factor of v.
        relative_error: The typical deviation of fitted from measured values, relative to the measured ones.
    """

    intercept: float
    slope: float
    relative_error: float


def fit_line(points: Sequence[tuple[float, float, float]]) -> Line:
    """Fits y = intercept·u + slope·v to (u, v, y) by least squares of relative errors, with both factors non-negative.

    Raises:
        ValueError: No point has y > 0.
    """
    scaled = _scale(points)
    line = _solve(scaled, [1.0] * len(scaled))
    square = statistics.fmean((line[0] * u + line[1] * v - 1) ** 2 for u, v in scaled)
    return Line(*line, math.sqrt(square))


def fit_robust_line(points: Sequence[tuple[float, float, float]], weights: Sequence[float]) -> Line:
    """Fits the same line by minimizing the weighted sum of |log(fitted / measured)|, which is robust to outliers.

    Uses iteratively reweighted least squares (Holland, Welsch 1977).

    Raises:
        ValueError: No point has y > 0.
    """
    scaled = _scale(points)
    adjusted = weights
    for _ in range(_ITERATIONS):
        line = _solve(scaled, adjusted)
        ratios = [max(line[0] * u + line[1] * v, _TINY) for u, v in scaled]
        adjusted = [
            weight * max(abs(math.log(ratio)), _TINY) / max(abs(ratio - 1), _TINY) ** 2
            for ratio, weight in zip(ratios, weights, strict=True)
        ]
    return Line(*line, _NORMAL * statistics.median(abs(ratio - 1) for ratio in ratios))


def _scale(points: Sequence[tuple[float, float, float]]) -> list[tuple[float, float]]:
    """(u, v) of each point, scaled so that the fitted value should be 1."""
    scaled = [(u / y, v / y) for u, v, y in points if y > 0]
    if not scaled:
        raise ValueError("no positive measurement to fit")
    return scaled


def _solve(scaled: Sequence[tuple[float, float]], weights: Sequence[float]) -> tuple[float, float]:
    """The non-negative factors of u and v that minimize the weighted squared distance from 1."""
    rows = [(u, v, weight) for (u, v), weight in zip(scaled, weights, strict=True)]
    uu = sum(weight * u * u for u, _, weight in rows)
    vv = sum(weight * v * v for _, v, weight in rows)
    uv = sum(weight * u * v for u, v, weight in rows)
    u1, v1 = sum(weight * u for u, _, weight in rows), sum(weight * v for _, v, weight in rows)
    determinant = uu * vv - uv * uv
    candidates = [(u1 / uu if uu else 0.0, 0.0), (0.0, v1 / vv if vv else 0.0)]
    if determinant > 1e-12 * uu * vv:
        both = ((u1 * vv - v1 * uv) / determinant, (v1 * uu - u1 * uv) / determinant)
        candidates += [both] if min(both) >= 0 else []
    return min(candidates, key=lambda line: sum(weight * (line[0] * u + line[1] * v - 1) ** 2 for u, v, weight in rows))


@dataclass(frozen=True)
class Timing:
    """The measured cost of an all-reduce."""

    workers: int
    num_bytes: float
    seconds: float


@dataclass(frozen=True)
class LinkFit:
    """A link fitted to a sweep of ring all-reduces, and the relative error of the fit."""

    link: Link
    relative_error: float


def fit_ring(timings: Sequence[Timing]) -> LinkFit:
    """Fits α and β so that 2(N−1)·α + 2(N−1)/N·b·β matches the measured times.

    Larger messages, which resemble gradients, get more weight: the fourth root of their bytes. A disturbance such as a
    busy core delays a small message by a much larger factor than a large one.

    Raises:
        ValueError: No timing has more than one worker and a positive time.
    """
    several = [timing for timing in timings if timing.workers > 1 and timing.seconds > 0]
    points = [
        (2.0 * (one.workers - 1), 2 * (one.workers - 1) * one.num_bytes / one.workers, one.seconds) for one in several
    ]
    line = fit_robust_line(points, [one.num_bytes**0.25 for one in several])
    return LinkFit(Link(line.intercept, line.slope), line.relative_error)


def fit_growth(values: Sequence[tuple[int, float]]) -> Line:
    """Fits how a cost grows with the number of workers: value ≈ intercept + slope·workers."""
    return fit_line([(1.0, float(workers), value) for workers, value in values])


def fit_compute(times: Sequence[tuple[float, float]]) -> Line:
    """Fits seconds ≈ intercept + slope·samples to (samples per worker, seconds).

    With a single number of samples, the intercept is taken to be 0.

    Raises:
        ValueError: No time is positive.
    """
    if len({samples for samples, _ in times}) == 1:
        return fit_line([(0.0, samples, seconds) for samples, seconds in times])
    return fit_line([(1.0, samples, seconds) for samples, seconds in times])
