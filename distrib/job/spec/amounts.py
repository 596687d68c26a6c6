"""Texts of a job spec that stand for numbers: intervals, sizes and durations."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

_BYTES = {"k": 1, "K": 1, "M": 2, "G": 3, "T": 4}
"""The power of 1000 or 1024 that a unit's first letter stands for."""


@dataclass(frozen=True)
class Interval:
    """How often something happens: every `count` steps or epochs, or never (count 0)."""

    count: int
    unit: Literal["step", "epoch", "second"]

    @classmethod
    def parse(cls, text: str) -> Interval:
        """Reads `100 steps`, `1 epoch` or `never`; the spec's patterns reject anything else."""
        if text == "never":
            return cls(0, "step")
        count, unit = text.split()
        units: dict[str, Literal["step", "epoch", "second"]] = {"step": "step", "epoch": "epoch", "second": "second"}
        return cls(int(count), units[unit.removesuffix("s")])

    def in_steps(self, steps_per_epoch: int) -> int:
        """The interval in optimizer steps; 0 for never and for seconds."""
        if self.unit == "second":
            return 0
        return self.count * (steps_per_epoch if self.unit == "epoch" else 1)


def parse_bytes(text: str) -> int:
    """Reads `8GiB` or `500 MB` as a number of bytes; the spec's pattern rejects anything else."""
    number, unit = re.findall(r"[0-9.]+|[A-Za-z]+", text)
    factor: int = (1024 if unit.endswith("iB") else 1000) ** _BYTES[unit[0]]
    return round(float(number) * factor)


def parse_duration(text: str) -> float:
    """Parses `30 minutes` or `2 hours` into seconds; the spec has already checked the pattern."""
    count, unit = text.split()
    return float(count) * {"second": 1, "minute": 60, "hour": 3600}[unit.removesuffix("s")]
