"""Room on each host: disk space, shared memory and open files."""

from __future__ import annotations

from collections.abc import Iterable

from distrib.doctor.check import Situation
from distrib.doctor.finding import Finding, Status
from distrib.doctor.host_facts import HostFacts
from distrib.job.reader import Job

_MIB, _GIB = 2**20, 2**30
_LEAST_DISK_BYTES = 100 * _MIB
_LITTLE_DISK_BYTES = 2 * _GIB
_LITTLE_SHARED_MEMORY_BYTES = 128 * _MIB
"""Docker's default of 64 MiB is below it; one loader worker with batches of images needs about this much."""
_FEW_OPEN_FILES = 1024
"""A rank of a large job holds a socket per peer and group, and loader workers hold a file per tensor in flight."""


class Room:
    """Checks disk space, shared memory and the limit of open files."""

    name = "room"
    is_free = True

    def run(self, situation: Situation) -> Iterable[Finding]:
        """One finding for each shortage."""
        problems = [
            finding for host, facts in situation.facts.items() for finding in self._problems(host, facts, situation)
        ]
        yield from problems
        if not problems and situation.facts:
            least = min(min(facts.free_bytes.values(), default=0) for facts in situation.facts.values())
            yield Finding(self.name, "ok", f"at least {least / _GIB:.0f} GiB of disk are free")

    def _problems(self, host: str, facts: HostFacts, situation: Situation) -> Iterable[Finding]:
        for folder, free in facts.free_bytes.items():
            if free < _LITTLE_DISK_BYTES:
                status: Status = "failed" if free < _LEAST_DISK_BYTES else "warning"
                message = f"only {free / _MIB:,.0f} MiB of disk are free for {folder}"
                yield Finding(self.name, status, message, (host,), "free disk space or choose another folder")
        job = situation.job
        has_loader_workers = isinstance(job, Job) and job.spec.data.loader_workers > 0
        shared = facts.shared_memory_bytes
        if (
            shared is not None
            and shared < _LITTLE_SHARED_MEMORY_BYTES
            and (has_loader_workers or facts.num_visible_gpus)
        ):
            yield Finding(
                self.name,
                "warning",
                f"/dev/shm has {shared / _MIB:,.0f} MiB; loader workers and NCCL pass data through it",
                (host,),
                "start the container with --shm-size=2g or --ipc=host, or set data.loader_workers: 0",
            )
        if 0 <= facts.num_open_files < _FEW_OPEN_FILES:
            message = f"processes may open only {facts.num_open_files} files"
            yield Finding(self.name, "warning", message, (host,), "raise the limit: ulimit -n 65536")
