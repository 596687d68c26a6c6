"""Finds out that ranks hang, which of them are late, and what each of them does."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from distrib.observe.activity import STALLED
from distrib.train.failure import Failure
from distrib.train.phases import Phase, Position
from distrib.train.process.process_groups import LONG_SECONDS

_POLL_SECONDS = 1.0
_MARGIN_SECONDS = 2.0
"""How much later than `failures.hang_timeout` a hang is reported: a step may end just then."""
_SUSPENDED_SECONDS = 5.0
"""The time between two polls, which come several times a second, from which on this process must have been stopped."""
_IDLE_SHARE = 0.02
"""A rank that uses less than this share of a CPU is idle; threads that poll use less."""
_WAITED_SHARE = 0.9
_STALL_SHARE = 0.25
_STALL_SECONDS = 10.0
"""Ranks that do not advance for a quarter of `failures.hang_timeout`, at least so long, are shown to the user."""


class RankPositions(Protocol):
    """Where an attempt's ranks stand, as their launcher sees it."""

    def read(self) -> Mapping[int, Position]:
        """The known positions by rank; `since` is in nanoseconds of this process's monotonic clock."""

    def cpu_seconds(self) -> Mapping[int, float]:
        """The CPU time that each living rank and its children have used, by rank."""


@dataclass(frozen=True)
class RankStanding:
    """What one rank was doing when a hang was found.

    Attributes:
        rank: The rank.
        completed_steps: Optimizer steps that it has completed; 0 if none in this attempt.
        phase: What it did.
        seconds: For how long.
    """

    rank: int
    completed_steps: int
    phase: Phase
    seconds: float


@dataclass(frozen=True)
class Hang:
    """Ranks that hang.

    Attributes:
        seconds: For how long no rank has advanced.
        ranks: What each rank does, by rank.
        late: The ranks that the others wait for; all of them if each seems to wait for the others.
    """

    seconds: float
    ranks: tuple[RankStanding, ...]
    late: tuple[int, ...]

    @classmethod
    def of(cls, positions: Mapping[int, Position], seconds: float, suspects: Collection[int] | None = None) -> Hang:
        """The hang of ranks at these positions.

        Args:
            positions: Where the ranks stand.
            seconds: For how long no rank has advanced.
            suspects: The only ranks that may be late; None means any.
        """
        now = time.monotonic_ns()
        ranks = tuple(
            RankStanding(rank, each.completed_steps, each.phase, (now - each.since) / 1e9)
            for rank, each in sorted(positions.items())
        )
        candidates = [each for each in ranks if suspects is None or each.rank in suspects] or list(ranks)
        working = [each for each in candidates if each.phase is not Phase.REDUCE] or candidates
        fewest = min((each.completed_steps for each in working), default=0)
        return cls(seconds, ranks, tuple(each.rank for each in working if each.completed_steps == fewest))

    def but_for(self, waiting: Collection[int]) -> Hang:
        """The same without ranks among the late ones whose stacks show that they wait for others."""
        late = tuple(rank for rank in self.late if rank not in waiting)
        return replace(self, late=late) if late else self

    def describe(self, hosts: Mapping[int, str]) -> str:
        """Who is late, in which phase and for how long, and what the others do: one sentence.

        Args:
            hosts: The names of the ranks' hosts, as far as they are known.
        """
        late = [each for each in self.ranks if each.rank in self.late]
        others = [each for each in self.ranks if each.rank not in self.late]
        if not late:
            return "the ranks have not begun"
        if len(self.ranks) > 1 and all(each.phase is Phase.REDUCE for each in self.ranks):
            return (
                f"all ranks wait in reduce, for {late[0].seconds:.0f} s: a connection is lost, or they wait in "
                "different collectives"
            )
        parts = []
        for phase in dict.fromkeys(each.phase for each in late):
            same = [each for each in late if each.phase is phase]
            has = "has" if len(same) == 1 else "have"
            parts.append(f"{_names(same, hosts)} {has} been in {phase.label} for {max(e.seconds for e in same):.0f} s")
        text = ", ".join(parts)
        if others:
            phases = " and ".join(dict.fromkeys(each.phase.label for each in others))
            text += f"; {'the other waits' if len(others) == 1 else 'the others wait'} in {phases}"
        return text


def _names(ranks: Sequence[RankStanding], hosts: Mapping[int, str]) -> str:
    shown = [f"{each.rank} on {hosts[each.rank]}" if each.rank in hosts else str(each.rank) for each in ranks[:8]]
    more = f" and {len(ranks) - len(shown)} more" if len(ranks) > len(shown) else ""
    return f"rank{'s' if len(ranks) > 1 else ''} {', '.join(shown)}{more}"


class HangWatch:
    """Finds out that no rank advances: no step ends, and no rank begins another phase.

    Ranks that wait for others hang after `failures.hang_timeout`. The ranks that they wait for may take longer before
    their first step has ended and for a batch of an evaluation, as long as they use CPU time, and for a checkpoint.
    Where no rank waits, ranks that use CPU time do not hang, however long a step takes.

    Args:
        positions: Where the ranks stand.
        timeout_seconds: `failures.hang_timeout`.
        is_script: Whether the ranks may do what their positions do not show: then only idle ones hang.
    """

    def __init__(self, positions: RankPositions, timeout_seconds: float, *, is_script: bool) -> None:
        self._is_script = is_script
        self._positions = positions
        self.timeout_seconds = timeout_seconds
        self._polled = self._step_ended = self._advanced = self._active = time.monotonic()
        self._last: Mapping[int, Position] = {}
        self._cpu_seconds: Mapping[int, float] = {}
        self._is_stall_reported = False

    @property
    def has_waited(self) -> bool:
        """Whether no step has ended for as long as a rank waits for another; not known of scripts without steps."""
        if self._is_script and not any(position.completed_steps for position in self._last.values()):
            return False
        return time.monotonic() - self._step_ended >= _WAITED_SHARE * self.timeout_seconds

    def poll(self) -> Hang | None:
        """The hang, if the ranks hang; called several times a second."""
        now = time.monotonic()
        elapsed = now - self._polled
        if elapsed < _POLL_SECONDS:
            return None
        self._polled = now
        if elapsed > _SUSPENDED_SECONDS:  # all processes were stopped, or the machine slept: nobody could advance
            self._advanced += elapsed
            self._active += elapsed
            self._step_ended += elapsed
        positions = self._positions.read()
        if positions != self._last or not positions:
            if _steps(positions) != _steps(self._last):
                self._step_ended = now
            self._last, self._advanced, self._active, self._cpu_seconds = positions, now, now, {}
            self._is_stall_reported = False
            return None
        before, self._cpu_seconds = self._cpu_seconds, self._positions.cpu_seconds()
        if any(used - before.get(rank, used) > _IDLE_SHARE * elapsed for rank, used in self._cpu_seconds.items()):
            self._active = now
        hang = Hang.of(positions, now - self._advanced)
        busy_limit, idle_limit = self._limits(positions, hang)
        is_hang = now - self._advanced >= busy_limit or now - self._active >= idle_limit
        return hang if is_hang else None

    def new_stall(self) -> Hang | None:
        """What is to be shown of ranks that have not advanced for a while, once: what each of them does."""
        seconds = time.monotonic() - self._advanced
        if self._is_stall_reported or seconds < max(_STALL_SECONDS, _STALL_SHARE * self.timeout_seconds):
            return None
        self._is_stall_reported = True
        return None if self._is_script else Hang.of(self._last, seconds)

    def hang_of(self, suspects: Collection[int]) -> Hang:
        """The present positions as a hang for which only some ranks can be the cause."""
        return Hang.of(self._positions.read(), time.monotonic() - self._step_ended, suspects)

    def _limits(self, positions: Mapping[int, Position], hang: Hang) -> tuple[float, float]:
        """After how many seconds ranks that do not advance hang, whether busy or not, and if they are idle."""
        usual = self.timeout_seconds + _MARGIN_SECONDS
        longer = max(LONG_SECONDS, usual)
        if self._is_script:
            return float("inf"), usual
        late = [positions[rank] for rank in hang.late]
        is_saving = any(each.phase is Phase.CHECKPOINT for each in late)
        is_long = is_saving or any(each.phase is Phase.EVALUATION or not each.completed_steps for each in late)
        is_waited_for = any(each.phase is Phase.REDUCE for each in positions.values())
        busy_limit = longer if is_long else usual
        return (busy_limit if is_waited_for else float("inf")), (longer if is_saving else usual)


def _steps(positions: Mapping[int, Position]) -> dict[int, int]:
    return {rank: position.completed_steps for rank, position in positions.items()}


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
    return bool(silent) and (
        is_explicit or (has_waited and any(failure.is_in_collective for failure in written.values()))
    )


def describe(hang: Hang, hosts: Mapping[int, str]) -> str:
    """For how long no step has ended, and who is late; see `Hang.describe`."""
    return f"{STALLED} for {hang.seconds:.0f} s: {hang.describe(hosts)}"


def hang_failure(hang: Hang, hosts: Mapping[int, str], detail: str = "") -> Failure:
    """The failure of an attempt whose ranks hang.

    Args:
        hang: What was found.
        hosts: The names of the ranks' hosts.
        detail: Where the first late rank stands in its code, or what a rank that waited for it has reported.
    """
    rank = hang.late[0] if hang.late else None
    standing = next((each for each in hang.ranks if each.rank == rank), None)
    return Failure(
        rank=rank,
        host=hosts.get(rank, "") if rank is not None else "",
        type="RankHangs",
        message=describe(hang, hosts) + (f"; {detail}" if detail else "") + "; the ranks' stacks are in their logs",
        traceback=None,
        kind="hang",
        time=time.time(),
        completed_steps=None if standing is None else standing.completed_steps,
        phase=None if standing is None else standing.phase.label,
    )
