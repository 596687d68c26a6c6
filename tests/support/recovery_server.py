"""Runs the command `distrib` again and again without importing torch each time.

Reads one JSON object a line: what to run, where, and where its output goes; forks for each. Answers `{"pid": …}` and,
at its end, `{"pid": …, "status": …}` with what `waitpid` says. Ends, and kills what is left, at the end of its input.
"""

import json
import os
import select
import signal
import sys
from contextlib import contextmanager

import torch

torch.set_num_threads(1)

from distrib.compat import torch_dynamo  # noqa: E402

torch_dynamo.install()

import torch.distributed.checkpoint.staging  # noqa: E402
import torchmetrics.classification  # noqa: E402, F401

import distrib.launch.local.attempt  # noqa: E402
import distrib.launch.local.launcher  # noqa: E402
import distrib.launch.prepare  # noqa: E402
import distrib.launch.start  # noqa: E402
import distrib.launch.supervisor  # noqa: E402
import distrib.observe.progress  # noqa: E402
import distrib.train.checkpoint.restore  # noqa: E402
from distrib.cli.main import main  # noqa: E402


@contextmanager
def ready_to_fork():
    """This process has been kept at one thread since it imported torch, which the product cannot know."""
    yield True


def serve():
    """Serves until the input ends."""
    distrib.launch.local.launcher.torch_ready_to_fork = ready_to_fork
    distrib.launch.prepare.check_compression = lambda *_: None  # gloo keeps the order of PowerSGD's sums for one bucket
    alive = set()
    buffer = b""
    while True:
        readable, _, _ = select.select([0], [], [], 0.01)
        if readable:
            data = os.read(0, 65536)
            if not data:
                break
            *lines, buffer = (buffer + data).split(b"\n")
            for line in lines:
                pid = start(**json.loads(line))
                alive.add(pid)
                answer(pid=pid)
        for pid in list(alive):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                alive.remove(pid)
                answer(pid=pid, status=os.waitstatus_to_exitcode(status))
    for pid in alive:
        os.kill(pid, signal.SIGKILL)


def start(arguments, folder, output, errors, environment):
    """Forks a process that is the command with these arguments."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.setsid()
        os.chdir(folder)
        os.environ.update(environment)
        for number, path in ((1, output), (2, errors)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.argv = ["distrib", *arguments]
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
