"""Starts a host's init process and runs commands on a host; uses only the standard library.

A host is a network namespace with its own process, mount and host name namespaces. When the first process of a process
namespace dies, the kernel kills all others, which looks like a host crash to other hosts.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

NEW_MOUNTS, NEW_HOSTNAME, NEW_PROCESSES, NEW_NETWORK = 0x20000, 0x4000000, 0x20000000, 0x40000000
_PARENT_DEATH_SIGNAL = 1
_MAX_BYTES_OF_SHARED_MEMORY = 2 * 2**30
_DEADLINE_FILE = "deadline"
_SENT_BY_KERNEL = 0x80
_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)

_libc = ctypes.CDLL(None, use_errno=True)


def main(arguments: Sequence[str]) -> int:
    """`start NAMESPACE HOSTNAME FOLDER` creates a host and prints its init PID; `run PID TIME FOLDER COMMAND…`."""
    verb, *rest = arguments
    if verb == "start":
        namespace, hostname, folder = rest
        return _start(namespace, hostname, Path(folder))
    pid, start_time, folder, *command = rest
    return _run(int(pid), start_time, folder, command)


def _start(namespace: str, hostname: str, folder: Path) -> int:
    """Starts the host's init process and prints its PID."""
    _check(_libc.prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL))
    with open(namespace) as file:
        _set_namespace(file.fileno(), NEW_NETWORK)
    _check(_libc.unshare(NEW_MOUNTS | NEW_HOSTNAME | NEW_PROCESSES))
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        os.setsid()
        _mount(folder)
        socket.sethostname(hostname)
        os.chdir(folder)
        silence = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):
            os.dup2(silence, stream)
        os.write(write, b"ready")
        os.close(write)
        _reap(folder / _DEADLINE_FILE)
        return 0
    os.close(write)
    if os.read(read, 5) != b"ready":
        os.waitpid(pid, 0)
        return 1
    print(pid, flush=True)
    return 0


def _mount(folder: Path) -> None:
    """Mounts what differs from the machine: processes, interfaces, shared memory and host names."""
    cgroups = Path("/sys/fs/cgroup")
    aside = folder / "cgroup"
    _call("mount", "--make-rprivate", "/")
    _call("mount", "-t", "proc", "proc", "/proc")
    if cgroups.is_dir():
        aside.mkdir(exist_ok=True)
        _call("mount", "--rbind", cgroups, aside)
    _call("mount", "-t", "sysfs", "sysfs", "/sys")
    if cgroups.is_dir() and aside.is_dir():
        _call("mount", "--move", aside, cgroups)
    _call("mount", "-t", "tmpfs", "-o", f"size={_MAX_BYTES_OF_SHARED_MEMORY}", "tmpfs", "/dev/shm")
    _call("mount", "--bind", folder / "hosts", "/etc/hosts")


def _reap(deadline_file: Path) -> None:
    """Reaps orphans until the deadline, which is read from the file on SIGUSR1; then the host ends."""
    signals = {signal.SIGCHLD, signal.SIGUSR1}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    deadline = float("inf")
    while time.monotonic() < deadline:
        received = signal.sigtimedwait(signals, min(deadline - time.monotonic(), 3600))
        if received is not None and received.si_signo == signal.SIGUSR1:
            deadline = float(deadline_file.read_text())
        try:
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass
        except ChildProcessError:
            pass


def _run(pid: int, start_time: str, folder: str, command: list[str]) -> int:
    """Runs a command in the host with this init process; forwards signals and returns the exit code."""
    kinds = {"pid": NEW_PROCESSES, "uts": NEW_HOSTNAME, "net": NEW_NETWORK, "mnt": NEW_MOUNTS}
    try:
        files = {kind: os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY) for kind in kinds}
        if Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19].decode() != start_time:
            raise ProcessLookupError
    except OSError:
        print("the host is down", file=sys.stderr)
        return 3
    _set_namespace(files["pid"], NEW_PROCESSES)
    waited = {*_FORWARDED, signal.SIGCHLD}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, waited)
    child = os.fork()
    if child == 0:
        _check(_libc.prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL))
        for kind in ("uts", "net", "mnt"):
            _set_namespace(files[kind], kinds[kind])
        try:
            os.chdir(folder)
        except OSError:
            print(f"the folder {folder} does not exist on the host", file=sys.stderr, flush=True)
            os._exit(3)
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            os.execvp(command[0], command)
        except OSError as error:
            print(f"{command[0]}: {error.strerror}", file=sys.stderr, flush=True)
            os._exit(127 if isinstance(error, FileNotFoundError) else 126)
    while True:
        received = signal.sigwaitinfo(waited)
        if received.si_signo == signal.SIGCHLD:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return _end_as(status)
        elif received.si_code != _SENT_BY_KERNEL:  # the terminal sends Ctrl-C to the command directly
            os.kill(child, received.si_signo)


def _end_as(status: int) -> int:
    """The exit code of a process with this wait status; a process killed by a signal kills this one the same way."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
        os.kill(os.getpid(), number)
    return os.waitstatus_to_exitcode(status)


def _set_namespace(descriptor: int, kind: int) -> None:
    _check(_libc.setns(descriptor, kind))


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _call(*command: str | Path) -> None:
    subprocess.run(command, check=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
