"""What measurements say of a cost model's constants: least squares, weighted so that relative errors count."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from distrib.scale.cost import Link


@dataclass(frozen=True)
class Line:
    """y ≈ intercept·u + slope·v, neither of them negative.

    Attributes:
        intercept: The factor of u.
        slope: The factor of v.
        relative_error: The root mean square of (fitted − measured) / measured.
    """

    intercept: float
    slope: float
    relative_error: float


def fit_line(points: Sequence[tuple[float, float, float]]) -> Line:
    """Fits y = intercept·u + slope·v to (u, v, y) by least squares of relative errors, both kept at 0 or above.

    Raises:
        ValueError: There is no point with y > 0.
    """
    scaled = [(u / y, v / y) for u, v, y in points if y > 0]
    if not scaled:
        raise ValueError("no positive measurement to fit")
    uu = sum(u * u for u, _ in scaled)
    vv = sum(v * v for _, v in scaled)
    uv = sum(u * v for u, v in scaled)
    u1, v1 = sum(u for u, _ in scaled), sum(v for _, v in scaled)
    determinant = uu * vv - uv * uv
    candidates = [(u1 / uu if uu else 0.0, 0.0), (0.0, v1 / vv if vv else 0.0)]
    if determinant > 1e-12 * uu * vv:
        both = ((u1 * vv - v1 * uv) / determinant, (v1 * uu - u1 * uv) / determinant)
        candidates += [both] if min(both) >= 0 else []

    def error(line: tuple[float, float]) -> float:
        return math.sqrt(sum((line[0] * u + line[1] * v - 1) ** 2 for u, v in scaled) / len(scaled))

    best = min(candidates, key=error)
    return Line(best[0], best[1], error(best))


@dataclass(frozen=True)
class Timing:
    """The measured cost of an all-reduce."""

    workers: int
    num_bytes: float
    seconds: float


@dataclass(frozen=True)
class LinkFit:
    """A link as a sweep of ring all-reduces shows it, and how far the fit is off."""

    link: Link
    relative_error: float


def fit_ring(timings: Sequence[Timing]) -> LinkFit:
    """α and β such that 2(N−1)·α + 2(N−1)/N·b·β comes closest to the measured times.

    Raises:
        ValueError: No timing is of more than one worker.
    """
    points = []
    for timing in timings:
        messages = 2 * (timing.workers - 1)
        if messages > 0:
            points.append((messages, messages * timing.num_bytes / timing.workers, timing.seconds))
    line = fit_line(points)
    return LinkFit(Link(line.intercept, line.slope), line.relative_error)


def fit_growth(values: Sequence[tuple[int, float]]) -> Line:
    """How a cost grows with the number of workers: value ≈ intercept + slope·workers."""
    return fit_line([(1.0, float(workers), value) for workers, value in values])


def fit_compute(times: Sequence[tuple[float, float]]) -> Line:
    """Seconds ≈ intercept + slope·samples, from (samples per worker, seconds).

    From one number of samples alone, all of the time is taken to be in the samples.

    Raises:
        ValueError: There is no positive time.
    """
    if len({samples for samples, _ in times}) == 1:
        return fit_line([(0.0, samples, seconds) for samples, seconds in times])
    return fit_line([(1.0, samples, seconds) for samples, seconds in times])
