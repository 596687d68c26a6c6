"""Whether the kernel has killed processes of this machine because memory ran out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class OutOfMemoryKills:
    """How many processes the kernel has killed so far for lack of memory.

    Attributes:
        in_group: Of this process's control group, whose memory may be limited; None if it is not known.
        on_machine: Of the whole machine; None if it is not known.
    """

    in_group: int | None
    on_machine: int | None

    @classmethod
    def so_far(cls) -> OutOfMemoryKills:
        """The present counts."""
        counts = [_count(file) for file in _group_files()]
        found = [count for count in counts if count is not None]
        return cls(found[0] if found else None, _count(Path("/proc/vmstat")))

    def explain_since(self, before: OutOfMemoryKills) -> str:
        """What the counts say about a process that was killed by SIGKILL meanwhile."""
        if (self.in_group or 0) > (before.in_group or 0):
            return "the kernel killed it because the memory limit of its control group (container, job) was reached"
        if (self.on_machine or 0) > (before.on_machine or 0):
            return "the kernel killed a process of this machine because memory ran out, probably this one"
        if self.in_group is None and self.on_machine is None:
            return "the kernel does this when memory runs out"
        return "the kernel has killed nothing for lack of memory, so a user, a scheduler or another program sent it"


def _group_files() -> list[Path]:
    """Where this process's control groups count: version 2 or version 1; as seen from inside a container too."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    files = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            files += [_CGROUPS / path.lstrip("/") / "memory.events", _CGROUPS / "memory.events"]
        elif "memory" in controllers.split(","):
            root = _CGROUPS / "memory"
            files += [root / path.lstrip("/") / "memory.oom_control", root / "memory.oom_control"]
    return files


def _count(file: Path) -> int | None:
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), None)
