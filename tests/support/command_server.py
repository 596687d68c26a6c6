"""Starts the command `distrib` in a tenth of a second: forked from a process that has imported torch.

For tests of what a command does. A test of how it starts (what it imports, how soon it can be interrupted, what it
leaves in its interpreter) starts an interpreter.
"""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from pathlib import Path

from tests.support.leaks import SHARED_PREFIX, share_process

REPOSITORY = Path(__file__).parents[2]


class CommandServer:
    """The process that forks, which starts with the first command."""

    def __init__(self):
        self._process = None
        self._pids = queue.Queue()
        self._statuses = {}
        self._ended = threading.Condition()
        self._lock = threading.Lock()

    def start(self, arguments, folder, output, errors, environment=None, *, any_compression=False):
        """Starts the command.

        Args:
            arguments: What follows `distrib` on the command line.
            folder: Where it runs.
            output: The file that stdout is appended to.
            errors: The same for stderr.
            environment: All of its environment; None: that of this process.
            any_compression: Whether to skip the check of the compression against the backend: gloo keeps the order of
                PowerSGD's sums for one bucket.
        """
        with self._lock:
            if self._process is None:
                self._start_server()
            order = {
                "arguments": list(map(str, arguments)),
                "folder": str(folder),
                "output": str(output),
                "errors": str(errors),
                "environment": dict(os.environ if environment is None else environment),
                "any_compression": any_compression,
            }
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
            return ForkedCommand(self._pids.get(timeout=60), self._statuses, self._ended)

    def run(self, arguments, folder, *, environment=None, timeout=60):
        """Runs the command to its end; returns what `subprocess.run` would."""
        output, errors = (Path(folder) / f".{name}-{os.urandom(4).hex()}" for name in ("stdout", "stderr"))
        command = self.start(arguments, folder, output, errors, environment)
        try:
            code = command.wait(timeout)
            return subprocess.CompletedProcess(arguments, code, output.read_text(), errors.read_text())
        finally:
            command.kill()
            output.unlink(missing_ok=True)
            errors.unlink(missing_ok=True)

    def close(self):
        """Ends it, and whatever it has started."""
        if self._process is not None:
            self._process.stdin.close()
            self._process.wait(30)
            self._process.stdout.close()

    def _start_server(self):
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.preloaded"],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={key: value for key, value in os.environ.items() if not key.startswith(("DISTRIB_", "RAY_"))},
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        share_process(self._process.pid)
        threading.Thread(target=self._read, name=f"{SHARED_PREFIX}command-server", daemon=True).start()

    def _read(self):
        for line in self._process.stdout:
            answer = json.loads(line)
            if "status" not in answer:
                self._pids.put(answer["pid"])
                continue
            with self._ended:
                self._statuses[answer["pid"]] = answer["status"]
                self._ended.notify_all()


def start_interpreter(arguments, folder, output, errors, environment):
    """The same without a server, as users start it: a new interpreter."""
    with open(output, "ab") as stdout, open(errors, "ab") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "distrib", *map(str, arguments)],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
    share_process(process.pid)
    return InterpretedCommand(process)


class InterpretedCommand:
    """A command in an interpreter of its own, with what ForkedCommand has."""

    def __init__(self, process):
        self._process = process
        self.pid = process.pid
        self.poll, self.wait, self.send_signal = process.poll, process.wait, process.send_signal

    def kill(self):
        """Ends it, and all of its process group, whatever they do."""
        if self._process.poll() is None:
            os.killpg(self.pid, signal.SIGKILL)
            self._process.wait(60)


class ForkedCommand:
    """One command, as `subprocess.Popen` would show it.

    Attributes:
        pid: The process, which leads a session and a process group of its own.
    """

    def __init__(self, pid, statuses, ended):
        self.pid = pid
        self._statuses = statuses
        self._ended = ended

    def poll(self):
        """The exit code, or None while it runs."""
        return self._statuses.get(self.pid)

    def wait(self, timeout=None):
        """Waits for the end; returns the exit code."""
        with self._ended:
            if not self._ended.wait_for(lambda: self.pid in self._statuses, timeout):
                raise subprocess.TimeoutExpired(f"distrib, process {self.pid}", timeout)
        return self._statuses[self.pid]

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        """Ends it, and all of its process group, whatever they do."""
        if self.poll() is None:
            os.killpg(self.pid, signal.SIGKILL)
            self.wait(60)
