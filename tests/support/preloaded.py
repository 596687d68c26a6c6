"""A process that has imported torch and runs the command `distrib` in forks of itself; see command_server.py.

Reads one JSON object a line: what to run, where, and where its output goes. Writes `{"pid": …}` for each and, when it
has ended, `{"pid": …, "status": …}` with its exit code. At the end of its input it kills what is left and ends.
"""

import json
import os
import select
import signal
import sys
import tempfile
from contextlib import contextmanager
from types import SimpleNamespace

import torch

torch.set_num_threads(1)

from distrib.compat.pytorch import dynamo  # noqa: E402

dynamo.install()

import torchmetrics.classification  # noqa: E402, F401

import distrib.launch.local.attempt  # noqa: E402
import distrib.launch.local.launcher  # noqa: E402
import distrib.launch.prepare  # noqa: E402
import distrib.launch.start  # noqa: E402
import distrib.launch.supervisor  # noqa: E402
import distrib.observe.terminal.progress  # noqa: E402
import distrib.train.checkpoint.restore  # noqa: E402
from distrib.cli.main import main  # noqa: E402


@contextmanager
def ready_to_fork():
    """Reports a process that can be forked: this one has had a single thread since it imported torch."""
    yield SimpleNamespace(can_fork=True)


def serve():
    """Serves until the input ends."""
    distrib.launch.local.launcher.torch_ready_to_fork = ready_to_fork
    children, buffer = {}, b""
    while True:
        readable, _, _ = select.select([0, *children], [], [])
        if 0 in readable:
            data = os.read(0, 65536)
            if not data:
                break
            *lines, buffer = (buffer + data).split(b"\n")
            for line in lines:
                pid = start(**json.loads(line))
                children[os.pidfd_open(pid)] = pid
                answer(pid=pid)
        for descriptor in set(readable) & set(children):
            pid = children.pop(descriptor)
            os.close(descriptor)
            _, status = os.waitpid(pid, 0)
            answer(pid=pid, status=os.waitstatus_to_exitcode(status))
    for pid in children.values():
        os.kill(pid, signal.SIGKILL)


def start(arguments, folder, output, errors, environment, any_compression):
    """Forks a process that is the command with these arguments."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.setsid()
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        tempfile.tempdir = None  # so that TMPDIR is read again
        for number, path in ((1, output), (2, errors)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.path[0] = folder
        sys.argv = ["distrib", *arguments]
        if any_compression:
            distrib.launch.prepare.check_compression = lambda *_: None
        main()
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def answer(**fields):
    os.write(1, json.dumps(fields).encode() + b"\n")


if __name__ == "__main__":
    serve()
