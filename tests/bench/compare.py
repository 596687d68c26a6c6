"""Rounds that take turns, and rows that judge what they measured."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Literal, TypeVar

Measured = TypeVar("Measured")
Verdict = Literal["ok", "over", "for information", "failed", "skipped"]


@dataclass(frozen=True)
class Row:
    """One line of the report.

    Attributes:
        what: What was measured, with its unit.
        ours: Our measurements, one a round.
        peer: The peer's in the same rounds; empty where `bound` is on our own median.
        bound: The largest median that is good, of the rounds' ratios or of our own measurements; None: not judged.
        problem: Why there is nothing to judge: a failure, or what is missing.
        skipped: Whether `problem` is only that something is not installed.
    """

    what: str
    ours: tuple[float, ...] = ()
    peer: tuple[float, ...] = ()
    bound: float | None = None
    problem: str = ""
    skipped: bool = False

    @property
    def judged(self) -> tuple[float, ...]:
        """What the bound is on: ratios of the measurements of the same round, or our own measurements."""
        if not self.peer:
            return self.ours
        return tuple(ours / peer for ours, peer in zip(self.ours, self.peer, strict=True))

    @property
    def verdict(self) -> Verdict:
        """Whether the median is within the bound."""
        if self.problem or not self.ours:
            return "skipped" if self.skipped else "failed"
        if self.bound is None:
            return "for information"
        return "ok" if median(self.judged) <= self.bound else "over"


def take_turns(rounds: int, sides: Mapping[str, Callable[[], Measured]]) -> dict[str, list[Measured]]:
    """Runs every side once a round; each round starts with another side, so that drift favours none."""
    measured: dict[str, list[Measured]] = {name: [] for name in sides}
    names = list(sides)
    for index in range(rounds):
        first = index % len(names)
        for name in names[first:] + names[:first]:
            print(f"  round {index + 1} of {rounds}: {name}", file=sys.stderr, flush=True)
            measured[name].append(sides[name]())
    return measured
