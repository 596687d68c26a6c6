"""Names of options in messages: `run_id` in backticks, as errors below the command line write it, becomes --run-id."""

from __future__ import annotations

import re

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
