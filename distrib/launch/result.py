"""How an attempt ended, whatever launched it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from distrib.train.failure import Failure


@dataclass(frozen=True)
class AttemptResult:
    """The end of an attempt.

    Attributes:
        status: `finished`, `failed`, `stopped` on request, or `resized`: stopped to go on with other workers.
        failure: The cause, where it failed.
        reason: Why the workers change, where they do.
    """

    status: Literal["finished", "failed", "stopped", "resized"]
    failure: Failure | None = None
    reason: str = ""
