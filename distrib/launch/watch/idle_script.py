"""What is reported of a script whose ranks are idle: its code may have a reason to wait, so it continues."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from distrib.launch.watch.stacks import describe_main_thread, may_wait_for_others

_MAX_NAMED = 4


@dataclass(frozen=True)
class CodePosition:
    """Where a rank's main thread stands.

    Attributes:
        where: The line of the job's own code, if there is one.
        waits: Whether it seems to wait for other ranks.
    """

    where: str | None
    waits: bool

    @classmethod
    def of_script(cls, stacks: str) -> CodePosition:
        """Read from the stacks of all threads, as `faulthandler` writes them."""
        return cls(describe_main_thread(stacks), may_wait_for_others(stacks))


def idle_notice(seconds: float, positions: Mapping[int, CodePosition], hosts: Mapping[int, str]) -> str:
    """The message, which names the ranks that the others seem to wait for.

    Args:
        seconds: For how long all ranks have been idle.
        positions: Where the ranks stand, as far as that is known.
        hosts: The names of their hosts.
    """
    late = [rank for rank, position in sorted(positions.items()) if not position.waits]
    names = [f"rank {rank} on {hosts[rank]}" if rank in hosts else f"rank {rank}" for rank in late]
    lines = [
        f"{name} is at {positions[rank].where or 'no line of its own code'}"
        for name, rank in zip(names[:_MAX_NAMED], late, strict=False)
    ]
    if len(late) > _MAX_NAMED:
        lines.append(f"so are {len(late) - _MAX_NAMED} more")
    if 0 < len(late) < len(positions):
        lines.append("the others wait for it" if len(late) == 1 else "the others wait for them")
    elif positions and not late:
        lines = ["all of them wait for other ranks"]
    return f"the script's ranks have been idle for {seconds:.0f} s (failures.hang_timeout): " + "; ".join(
        [*lines, "their stacks are in their logs"]
    )
