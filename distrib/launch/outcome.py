"""How an attempt ended, whatever launched it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from distrib.train.failure import Failure


@dataclass(frozen=True)
class Outcome:
    """The end of an attempt.

    Attributes:
        status: `finished`, `failed`, or `stopped` on request.
        failure: The cause, where it failed.
    """

    status: Literal["finished", "failed", "stopped"]
    failure: Failure | None = None
