"""A service as one process and its client as another; on loopback, with time limits."""

import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.bench.process import MARK, REPOSITORY, SHARED_ENVIRONMENT, SideFailedError, kill_all, tail

_START_SECONDS = 60


def free_port() -> int:
    """A port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextlib.contextmanager
def served(name: str, command: Sequence[str], port: int) -> Iterator[str]:
    """Starts a service and gives its URL once it answers.

    Raises:
        SideFailedError: It did not come up.
    """
    mark = secrets.token_hex(8)
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command, cwd=REPOSITORY, env={**os.environ, **SHARED_ENVIRONMENT, MARK: mark}, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True,
        )  # fmt: skip
        try:
            deadline = time.monotonic() + _START_SECONDS
            while not _answers(url):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SideFailedError(f"{name} did not come up\n{tail(errors)}")
                time.sleep(0.1)
            yield url
        finally:
            kill_all(process, mark)


def ask(url: str, body: Path, *, connections: int, seconds: float, rate: float = 0.0) -> dict[str, Any]:
    """Asks a service from a process of its own; gives what tests.support.load_program says.

    Raises:
        SideFailedError: A request was lost or was not answered with 200.
    """
    arguments = [url, connections, seconds, rate, body]
    result = subprocess.run(
        [sys.executable, "-m", "tests.support.load_program", *map(str, arguments)],
        cwd=REPOSITORY, env={**os.environ, **SHARED_ENVIRONMENT}, capture_output=True, text=True,
        timeout=seconds + 60, check=False,
    )  # fmt: skip
    if result.returncode != 0:
        raise SideFailedError(f"the load generator failed\n{result.stderr[-2000:]}")
    told: dict[str, Any] = json.loads(result.stdout)
    if told["num_problems"] or told["statuses"].keys() != {"200"}:
        raise SideFailedError(f"requests went wrong: {told['statuses']}, {told['num_problems']}: {told['problems']}")
    return told


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/healthz", timeout=1) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False
