"""What Ray's process on this host, the raylet, logs about the worker processes that it starts."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from distrib.compat.symbols import RAY_VERSIONS, PrivateSymbol

SYMBOLS = (
    PrivateSymbol(
        "ray._private.worker._global_node.get_logs_dir_path",
        "where the logs of this host's Ray are; the public API lists them through the dashboard, which may not run",
        RAY_VERSIONS,
        "workers that cannot start are noticed only after a time limit, and no log is quoted",
    ),
    PrivateSymbol(
        "raylet: text of a started worker process",
        "Ray starts another worker process, without end and without an error, if one ends before it has registered",
        RAY_VERSIONS,
        "workers that cannot start are noticed only after a time limit",
    ),
)
_STARTED = re.compile(rb"Started worker process with pid (\d+)")


@dataclass(frozen=True)
class RayletLog:
    """The raylet's logs from a position on.

    Attributes:
        folder: Of all logs of this host's Ray; None if it is not known.
        output_start: From which byte of its log on it is read.
        errors_start: The same of its error output, which workers have too until they have registered.
    """

    folder: Path | None
    output_start: int = 0
    errors_start: int = 0

    @classmethod
    def from_the_beginning(cls) -> RayletLog:
        """The whole logs of the Ray that this process is connected to."""
        return cls(_logs_folder())

    @classmethod
    def from_now(cls) -> RayletLog:
        """What is logged from now on."""
        folder = _logs_folder()
        if folder is None:
            return cls(None)
        return cls(folder, _size(folder / "raylet.out"), _size(folder / "raylet.err"))

    def started_workers(self) -> list[int]:
        """The ids of the worker processes that were started."""
        return [int(pid) for pid in _STARTED.findall(self._read("raylet.out", self.output_start))]

    def has_registered(self, pid: int) -> bool:
        """Whether a worker process has got as far as to register, from when on it has a log of its own."""
        return self.folder is None or any(self.folder.glob(f"python-core-worker-*_{pid}.log"))

    def error_lines(self) -> list[str]:
        """What the raylet, and workers that have not registered, have written to standard error."""
        return _without_blank(self._read("raylet.err", self.errors_start).decode(errors="replace").splitlines())

    def _read(self, name: str, start: int) -> bytes:
        if self.folder is None:
            return b""
        try:
            with (self.folder / name).open("rb") as file:
                file.seek(start if start <= file.seek(0, 2) else 0)  # Ray begins another file when one is full
                return file.read()
        except OSError:
            return b""


def _without_blank(lines: Iterable[str]) -> list[str]:
    return [line.rstrip() for line in lines if line.strip()]


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _logs_folder() -> Path | None:
    try:
        from ray._private.worker import _global_node
    except ImportError:
        return None
    path = getattr(_global_node, "get_logs_dir_path", lambda: None)()
    return Path(path) if path is not None and Path(path).is_dir() else None
