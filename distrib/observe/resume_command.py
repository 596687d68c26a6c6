"""The command that continues a run."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from distrib.observe.format import short_path

if TYPE_CHECKING:
    from distrib.runs.run import Run

_PROGRAMS = ("distrib", "__main__.py")
_WITHOUT_VALUE = ("--fresh", "--json")
_WITH_VALUE = ("--run-id",)


def resume_command(run: Run) -> str:
    """The command that continues a run from its newest checkpoint.

    It is that of the newest launch, with `--run-id`. A run launched in another way, for example from Python, is
    continued by the spec in its folder.
    """
    command = (run.record.get("provenance") or {}).get("command") or []
    arguments = [str(argument) for argument in command] if isinstance(command, list) else []
    if len(arguments) >= 3 and Path(arguments[0]).name in _PROGRAMS and arguments[1] == "run":
        return shlex.join(["distrib", "run", *_with_run_id(arguments[2:], run.id)])
    return shlex.join(["distrib", "run", str(short_path(run.job_file)), "--run-id", run.id])


def _with_run_id(arguments: Sequence[str], run_id: str) -> list[str]:
    """The arguments of `distrib run` for a run that exists; what follows `--` belongs to a script and stays."""
    kept: list[str] = []
    rest = list(arguments)
    while rest and rest[0] != "--":
        argument = rest.pop(0)
        name = argument.partition("=")[0]
        if name in _WITH_VALUE:
            if "=" not in argument and rest:
                rest.pop(0)
        elif argument not in _WITHOUT_VALUE:
            kept.append(argument)
    return [*kept, "--run-id", run_id, *rest]
