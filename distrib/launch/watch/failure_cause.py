"""Which of several dead ranks is the cause of a failure."""

from __future__ import annotations

import contextlib
import signal
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from distrib.compat.messages import is_lost_connection
from distrib.runs.layout import RunLayout
from distrib.runs.log_times import mark_time
from distrib.train.failure import Failure, Kind

_LEFT = "RankExited"
_ORDER = {"user": 0, _LEFT: 1, "hang": 2, "infrastructure": 2}
"""What is a cause rather than a consequence comes first."""
_MAX_LISTED = 8
_ENDS = (_LEFT, "ScriptExitError", "SystemExit", "KeyboardInterrupt")
"""What scripts may answer a request to stop with."""


def read_failures(run_folder: Path, world_size: int) -> dict[int, Failure]:
    """What ranks have written of their failures, by rank."""
    layout = RunLayout(run_folder)
    found = {rank: Failure.read(layout.rank_error(rank)) for rank in range(world_size)}
    return {rank: failure for rank, failure in found.items() if failure is not None}


def log_errors(run_folder: Path, failures: Mapping[int, Failure]) -> None:
    """Appends its error to the log of each rank that failed; to be called once all ranks have stopped writing."""
    layout = RunLayout(run_folder)
    for rank, failure in failures.items():
        text = failure.traceback or f"{failure.type}: {failure.message}"
        mark_time(layout.rank_log(rank), layout.rank_log_times(rank), failure.time)
        with (
            contextlib.suppress(OSError),
            layout.rank_log(rank).open("a", encoding="utf-8", errors="backslashreplace") as log,
        ):
            log.write(text.rstrip() + "\n")


def find_cause(written: Mapping[int, Failure], deaths: Mapping[int, int], sigkill_reason: str = "") -> Failure:
    """The failure that explains an attempt's end.

    A rank that a signal killed outranks all others; then comes the earliest error of the user's own, then a rank that
    exited without reporting an error, and at last the broken connections that follow from any of these. Hangs are found
    before; see `distrib.launch.watch.hangs`.

    Args:
        written: The failures that ranks have reported, by rank.
        deaths: Exit status by rank of those that failed before the launcher killed the rest; negative is a signal's
            number.
        sigkill_reason: What is known about why the kernel or another program killed ranks.
    """
    killed = [rank for rank, status in deaths.items() if status < 0]
    if killed:
        failure = _killed(killed[0], deaths[killed[0]], sigkill_reason)
        return replace(failure, others=_in_one_line(written, failure))
    failures = [*written.values(), *(_left(rank, status) for rank, status in deaths.items() if rank not in written)]
    if not failures:
        return _left(None, None)
    cause = min(failures, key=lambda failure: (_ORDER.get(failure.type, _ORDER[failure.kind]), failure.time))
    return replace(cause, others=_in_one_line(written, cause))


def with_early_ends(cause: Failure, ended: Sequence[int]) -> Failure:
    """A lost connection with the ranks of a script that had ended by then, which is why it was lost.

    Args:
        cause: The failure that explains the attempt's end.
        ended: The ranks whose scripts have ended without an error.
    """
    if not ended or not is_lost_connection(cause.message):
        return cause
    ranks = _ranks(ended)
    advice = (
        f"the script had already ended without an error on {ranks}, while rank {cause.rank} still communicated: all "
        "ranks need the same number of collective calls, also if their data differs in length"
    )
    return replace(cause, advice=advice)


def error_while_stopping(failures: Mapping[int, Failure]) -> str | None:
    """The error of a script that was requested to stop, in one line; None if its ranks only ended, in whatever way.

    A script may end by an exit status, and a rank that ends breaks the connections of the others.
    """
    errors = [
        failure
        for failure in failures.values()
        if failure.kind == "user" and not failure.is_in_collective and failure.type not in _ENDS
    ]
    first = min(errors, key=lambda failure: failure.time, default=None)
    return None if first is None else f"an error while stopping: {first.headline}"


def _in_one_line(written: Mapping[int, Failure], cause: Failure) -> str | None:
    """The failures other than the cause, by their types; None if there are none."""
    types: dict[str, list[int]] = {}
    for rank, failure in written.items():
        if rank != cause.rank and failure is not cause:
            types.setdefault(failure.type, []).append(rank)
    return "; ".join(f"{_ranks(ranks)}: {type_name}" for type_name, ranks in types.items()) or None


def _ranks(ranks: Sequence[int]) -> str:
    """Ranks for people: `rank 1`, or `ranks 1, 2`, the first ones of many."""
    more = " …" if len(ranks) > _MAX_LISTED else ""
    return f"rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks[:_MAX_LISTED]))}{more}"


def _left(rank: int | None, status: int | None) -> Failure:
    ended = "ended" if status is None else f"ended with exit status {status}"
    return _seen(rank, _LEFT, f"{ended} and wrote no error; something called exit()", "user")


def _killed(rank: int, status: int, sigkill_reason: str) -> Failure:
    name = signal.Signals(-status).name
    hint = f": {sigkill_reason}" if -status == signal.SIGKILL and sigkill_reason else ""
    return _seen(rank, name, f"was killed by {name}{hint}", "infrastructure")


def _seen(rank: int | None, type_name: str, how: str, kind: Kind) -> Failure:
    """The failure of a rank that could not report it: what the launcher saw of its process."""
    return Failure(
        rank=rank,
        host=socket.gethostname(),
        type=type_name,
        message=f"the rank's process {how}",
        traceback=None,
        kind=kind,
        time=time.time(),
    )
