"""The stacks of ranks that hang: written to their logs, and the line of the job's own code found in them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sysconfig
import time
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

import distrib
from distrib.runs.log_times import mark_time
from distrib.train.process.stacks import STACK_SIGNAL

NATIVE_SECONDS = 4.0
"""How long py-spy may take for all ranks of a host."""

_FRAME = re.compile(r'^  File "(?P<file>[^"]*)", line (?P<line>\d+) in (?P<function>.*)$')
_THREAD = re.compile(r"^(Current t|T)hread 0x")
_PACKAGES = tuple(str(Path(package.__file__ or "").parent) + os.sep for package in (distrib, torch))
_STANDARD_LIBRARY = tuple(str(sysconfig.get_path(name)) + os.sep for name in ("stdlib", "platstdlib"))
_INSTALLED = ("site-packages" + os.sep, "dist-packages" + os.sep)
_COLLECTIVES = os.path.join("torch", "distributed", "distributed_c10d.py")
_WAITING = (_COLLECTIVES, os.path.join("distrib", "train", "process", "rank_tree.py"))
_BACKWARD = os.path.join("torch", "autograd", "graph.py")
_NUM_INNERMOST = 3
_RANK_FUNCTION = "run_rank"
"""The function that the main thread of a rank runs, under every launcher."""


@dataclass(frozen=True)
class Frame:
    """One line of a stack."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{Path(self.file).name}:{self.line} in {self.function}"


class LogMark:
    """The end of a log at present, after which stacks are about to be written.

    Args:
        log: The log of a rank.
        times: The times of its lines.
        heading: A line that is written first, saying what follows.
    """

    def __init__(self, log: Path, times: Path, heading: str) -> None:
        self._log = log
        mark_time(log, times, time.time())
        with suppress(OSError), log.open("ab") as file:
            file.write(f"\n{heading}\n".encode())
        self._start = self._size()

    def _size(self) -> int:
        try:
            return self._log.stat().st_size
        except OSError:
            return 0

    @property
    def has_grown(self) -> bool:
        """Whether something has been written since."""
        return self._size() > self._start

    def text(self) -> str:
        """What has been written since."""
        try:
            with self._log.open("rb") as file:
                file.seek(self._start)
                return file.read().decode(errors="replace")
        except OSError:
            return ""


def describe_main_thread(text: str) -> str | None:
    """Where a rank's own code stands: `train.py:31 in forward`, and the collective that it waits in, if it does.

    Args:
        text: The stacks of all threads, as `faulthandler` writes them.
    """
    frames = _main_thread(text)
    number = next((number for number, frame in enumerate(frames) if _is_own(frame.file)), None)
    if number is None:
        return None
    above = [frame.function for frame in frames[:number] if frame.file.endswith(_COLLECTIVES)]
    call = next((name for name in reversed(above) if name != "wrapper"), None)
    return f"{frames[number]}" + (f", which waits in the collective {call}" if call else "")


def waits_for_others(text: str) -> bool:
    """Whether a rank's main thread is inside a collective, of the job's own code too.

    Args:
        text: The stacks of all threads, as `faulthandler` writes them.
    """
    return any(frame.file.endswith(_WAITING) for frame in _main_thread(text)[:_NUM_INNERMOST])


def may_wait_for_others(text: str) -> bool:
    """The same, or inside a backward pass, in which no Python frame shows that it waits for gradients."""
    frames = _main_thread(text)
    return waits_for_others(text) or (bool(frames) and frames[0].file.endswith(_BACKWARD))


def _main_thread(text: str) -> list[Frame]:
    """The frames of a rank's main thread, the newest first."""
    threads: list[tuple[bool, list[Frame]]] = []
    for line in text.splitlines():
        if _THREAD.match(line):
            threads.append((line.startswith("Current"), []))
        elif threads and (found := _FRAME.match(line)):
            threads[-1][1].append(Frame(found["file"], int(found["line"]), found["function"]))
    for _, frames in threads:
        if any(frame.function == _RANK_FUNCTION for frame in frames):
            return frames
    return next((frames for is_current, frames in threads if is_current), [])


def _is_own(file: str) -> bool:
    """Whether a source file belongs to the job: not to Python, an installed package or this one."""
    is_code = not file.startswith("<")
    return is_code and not file.startswith((*_PACKAGES, *_STANDARD_LIBRARY)) and not any(p in file for p in _INSTALLED)


def request_stacks(pid: int) -> bool:
    """Has a rank write its Python stacks to its log, if it already handles the signal for that, which else ends it."""
    if not _handles(pid, STACK_SIGNAL):
        return False
    os.kill(pid, STACK_SIGNAL)
    return True


def _handles(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal; assumed if the system has no /proc."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return not Path("/proc/self/status").exists()
    caught = next((line.split()[1] for line in text.splitlines() if line.startswith("SigCgt:")), "0")
    return bool(int(caught, 16) >> (number - 1) & 1)


def write_native_stacks(processes: Iterable[tuple[int, Path]]) -> Collection[Path]:
    """Writes the stacks of processes with their native frames to files, by py-spy if it is installed.

    Args:
        processes: Process ids, each with its file.

    Returns:
        The files that have been written.
    """
    program = shutil.which("py-spy")
    if program is None:
        return []
    started = []
    for pid, file in processes:
        with suppress(OSError), file.open("wb") as output:
            command = [program, "dump", "--native", "--pid", str(pid)]
            started.append((file, subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL)))
    written = []
    deadline = time.monotonic() + NATIVE_SECONDS
    for file, process in started:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.returncode == 0:
            written.append(file)
        else:
            file.unlink(missing_ok=True)  # it may not look at other processes, as in most containers
    return written
