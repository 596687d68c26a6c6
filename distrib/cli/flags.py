"""Names of options in messages: `run_id` in backticks, as errors below the command line write it, becomes --run-id."""

from __future__ import annotations

import re

from distrib.observe.group import ObserverGroup

_OPTIONS = frozenset({
    *("address", "args", "batch_size", "data", "device", "env", "extend", "force", "format", "fresh", "host", "link"),
    *("max_restarts", "on", "out", "port", "predict", "record_samples", "repeats", "resume", "run_id", "runs_dir"),
    *("set", "steps", "token", "weights", "workers"),
})  # fmt: skip
_NAME = re.compile(r"`([a-z_]+)`")


def with_flags(message: str) -> str:
    """A message with the names of options as they are written on the command line; other names stay as they are."""

    def flag(match: re.Match[str]) -> str:
        return f"--{match[1].replace('_', '-')}" if match[1] in _OPTIONS else match[0]

    return _NAME.sub(flag, message)


class FlagObservers(ObserverGroup):
    """Observers of a run that was started on the command line: notices name options as they are written there."""

    def notice(self, message: str) -> None:
        """Passes it on."""
        super().notice(with_flags(message))

    def waiting(self, reason: str) -> None:
        """Passes it on."""
        super().waiting(with_flags(reason))
