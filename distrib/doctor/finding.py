"""What a check found: one line for people, one object for programs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Status = Literal["ok", "warning", "failed"]


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        name: The check that found it.
        status: `failed` means that a training would fail or compute something wrong; `warning`, that it may be slow or
            fail later.
        message: What was found, in one line.
        hosts: The hosts that it concerns; empty if it concerns all of them.
        fix: What to do about it; empty if nothing needs to be done.
    """

    name: str
    status: Status
    message: str
    hosts: tuple[str, ...] = ()
    fix: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The finding as plain data."""
        return {**asdict(self), "hosts": list(self.hosts)}
