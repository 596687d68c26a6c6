"""Which of several dead ranks is the cause of a failure."""

from __future__ import annotations

import contextlib
import signal
import socket
import time
from collections.abc import Collection, Mapping
from pathlib import Path

from distrib.runs.layout import RunLayout
from distrib.train.failure import Failure

_LEFT = "RankExited"
_ORDER = {"user": 0, _LEFT: 1, "hang": 2, "infrastructure": 2}
"""What is a cause rather than a consequence comes first."""


def read_failures(run_folder: Path, world_size: int) -> dict[int, Failure]:
    """What ranks have written of their failures, by rank."""
    layout = RunLayout(run_folder)
    found = {rank: Failure.read(layout.rank_error(rank)) for rank in range(world_size)}
    return {rank: failure for rank, failure in found.items() if failure is not None}


def log_errors(run_folder: Path, failures: Mapping[int, Failure]) -> None:
    """Ends the log of each rank that failed with its error; to be called once no rank writes any more."""
    layout = RunLayout(run_folder)
    for rank, failure in failures.items():
        text = failure.traceback or f"{failure.type}: {failure.message}"
        with (
            contextlib.suppress(OSError),
            layout.rank_log(rank).open("a", encoding="utf-8", errors="backslashreplace") as log,
        ):
            log.write(text.rstrip() + "\n")


def is_hang(written: Mapping[int, Failure], silent: Collection[int] = (), *, has_waited: bool = False) -> bool:
    """Whether ranks have waited in vain for others, and none has failed on its own.

    The text of an error in a collective may not say that it timed out. It did if other ranks are alive and silent, and
    no step has ended for as long as a rank waits.

    Args:
        written: The failures that ranks have reported.
        silent: The ranks that are alive and have reported nothing.
        has_waited: Whether no step has ended for `failures.hang_timeout`.
    """
    if any(failure.kind == "user" and not failure.is_in_collective for failure in written.values()):
        return False
    is_explicit = any(failure.kind == "hang" for failure in written.values())
    return is_explicit or bool(silent and has_waited and any(one.is_in_collective for one in written.values()))


def find_cause(
    written: Mapping[int, Failure],
    deaths: Mapping[int, int],
    silent: Collection[int] = (),
    *,
    has_waited: bool = False,
) -> Failure:
    """The failure that explains an attempt's end.

    A rank that a signal killed outranks all others; then comes the earliest error of the user's own, then a rank that
    exited without reporting an error, then one for which the others waited in vain, and at last the broken connections
    that follow from any of these.

    Args:
        written: The failures that ranks have reported, by rank.
        deaths: Exit status by rank of those that failed before the launcher killed the rest; negative is a signal's
            number.
        silent: Ranks that had neither ended nor reported anything by then.
        has_waited: Whether no step has ended for `failures.hang_timeout`.
    """
    killed = [rank for rank, status in deaths.items() if status < 0]
    if killed:
        return _killed(killed[0], deaths[killed[0]])
    failures = [*written.values(), *(_left(rank, status) for rank, status in deaths.items() if rank not in written)]
    if not failures:
        return _left(None, None)
    if silent and is_hang(written, silent, has_waited=has_waited) and all(rank in written for rank in deaths):
        return _hanging(min(silent), written)
    return min(failures, key=lambda failure: (_ORDER.get(failure.type, _ORDER[failure.kind]), failure.time))


def _left(rank: int | None, status: int | None) -> Failure:
    ended = "ended" if status is None else f"ended with exit status {status}"
    return Failure(
        rank=rank,
        host=socket.gethostname(),
        type=_LEFT,
        message=f"the rank's process {ended} and wrote no error; something called exit()",
        traceback=None,
        kind="user",
        time=time.time(),
    )


def _hanging(rank: int, written: Mapping[int, Failure]) -> Failure:
    explicit = {rank: failure for rank, failure in written.items() if failure.kind == "hang"}
    waiting, failure = next(iter((explicit or written).items()))
    return Failure(
        rank=rank,
        host=failure.host,
        type="RankHangs",
        message=f"the rank hangs, and the others waited for it; rank {waiting} reports: {failure.message}",
        traceback=None,
        kind="hang",
        time=time.time(),
    )


def standstill(late_ranks: Collection[int], seconds: float) -> Failure:
    """The failure of ranks that complete no step and use no CPU time.

    Args:
        late_ranks: Those that have completed the fewest steps.
        seconds: How long.
    """
    named = f"rank{'s' if len(late_ranks) > 1 else ''} {', '.join(map(str, late_ranks))}"
    return Failure(
        rank=min(late_ranks),
        host=socket.gethostname(),
        type="RankHangs",
        message=f"no step has ended for {seconds:.0f} s (failures.hang_timeout) and the ranks are idle; the last to "
        f"complete a step: {named}, whose stack is in its log",
        traceback=None,
        kind="hang",
        time=time.time(),
    )


def _killed(rank: int, status: int) -> Failure:
    name = signal.Signals(-status).name
    hint = "; the kernel does this when memory runs out" if -status == signal.SIGKILL else ""
    return Failure(
        rank=rank,
        host=socket.gethostname(),
        type=name,
        message=f"the rank's process was killed by {name}{hint}",
        traceback=None,
        kind="infrastructure",
        time=time.time(),
    )
