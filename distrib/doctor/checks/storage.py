"""Can every host write to the storage of runs, and read what another one has written?"""

from __future__ import annotations

from collections.abc import Iterable

from distrib.doctor.check import Situation
from distrib.doctor.finding import Finding
from distrib.doctor.storage_probe import probe_name, read_probes, remove_probe, write_probe
from distrib.launch.fleet import Fleet, NoAnswer
from distrib.runs.storage.location import absolute, is_relative

_SECONDS = 30.0
_SHARED = "use a folder that all hosts share at the same path, or an object store: --runs-dir or DISTRIB_RUNS_DIR"


class SharedStorage:
    """Has every host write an object to the job's `storage` and the first one read them all, and the reverse."""

    name = "storage"

    def run(self, situation: Situation, fleet: Fleet) -> Iterable[Finding]:
        """One finding for each host that cannot write, or whose objects other hosts do not see."""
        if situation.job is None:
            return
        location = situation.job.spec.storage
        if len(fleet.members) > 1 and is_relative(location):
            yield Finding(self.name, "failed", f"{location!r} is another folder on each host", fix=_SHARED)
            return
        location = absolute(location)
        names = {member.name: probe_name() for member in fleet.members}
        try:
            yield from self._examine(fleet, location, names)
        finally:
            fleet.call(_remove_all, {host: (location, list(names.values())) for host in names}, _SECONDS)

    def _examine(self, fleet: Fleet, location: str, names: dict[str, str]) -> Iterable[Finding]:
        problems = 0
        written = fleet.call(
            write_probe, {host: (location, name, host.encode()) for host, name in names.items()}, _SECONDS
        )
        writers = [host for host, answer in written.items() if not isinstance(answer, NoAnswer)]
        for host, answer in written.items():
            if isinstance(answer, NoAnswer):
                problems += 1
                message = f"cannot write to {location}: {answer.reason}"
                yield Finding(self.name, "failed", message, (host,), "allow it, or choose another place: --runs-dir")
        head, *others = writers or [""]
        wanted = {reader: [head] for reader in others} | ({head: others} if others else {})
        arguments = {reader: (location, [names[writer] for writer in seen]) for reader, seen in wanted.items()}
        for reader, found in fleet.call(read_probes, arguments, _SECONDS).items():
            for writer in wanted[reader]:
                if isinstance(found, NoAnswer) or found.get(names[writer]) != writer.encode():
                    problems += 1
                    reason = f": {found.reason}" if isinstance(found, NoAnswer) else ""
                    message = f"{reader} does not see in {location} what {writer} has written there{reason}"
                    yield Finding(self.name, "failed", message, (reader, writer), _SHARED)
        if not problems:
            yield Finding(
                self.name,
                "ok",
                f"{location} is written and read by every host" if others else f"{location} is writable",
            )


def _remove_all(location: str, names: list[str]) -> None:
    for name in names:
        remove_probe(location, name)
