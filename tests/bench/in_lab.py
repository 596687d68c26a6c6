"""Labs to measure in, and commands on their hosts."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

from cluster.lab import Lab
from tests.bench.process import REPOSITORY, Finished, run_side
from tests.bench.sides import TIMEOUT_SECONDS

_NUMBERS = count()


@contextmanager
def a_lab(hosts: int, **options: Any) -> Iterator[Lab]:
    """A lab that is gone afterwards; `options` are those of `Lab.up`."""
    with tempfile.TemporaryDirectory(prefix="lab") as folder:
        name = f"b{os.getpid()}x{next(_NUMBERS)}"
        try:
            yield Lab.up(hosts, name=name, folder=folder, **options)
        finally:
            Lab(name, folder).down()


def on_head(
    lab: Lab,
    name: str,
    command: list[str],
    environment: dict[str, str],
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> Finished:
    """Runs a command on the lab's head to its end."""
    return run_side(
        name,
        lab.command("host1", command, REPOSITORY),
        timeout_seconds=timeout_seconds,
        environment=lab.environment(environment),
    )
