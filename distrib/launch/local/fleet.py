"""This machine as a fleet of one host."""

from __future__ import annotations

import multiprocessing
import socket
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any, Self

from distrib.launch.fleet import Member, NoAnswer

_LOOPBACK = "127.0.0.1"


class LocalFleet:
    """Runs functions in one other process of this machine, so that what they import or open stays out of this one."""

    def __init__(self) -> None:
        self.members = [Member(socket.gethostname(), _LOOPBACK)]
        self.silent: dict[str, str] = {}
        spawn = multiprocessing.get_context("spawn")
        self._connection, theirs = spawn.Pipe()
        self._process = spawn.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        self._process.join()
        self._connection.close()

    def call(
        self, function: Callable[..., Any], arguments: Mapping[str, tuple[Any, ...]], timeout_seconds: float
    ) -> dict[str, Any]:
        """Runs the function; see `Fleet.call`. After a time-out, every later call gets no answer either."""
        return {name: self._call(function, values, timeout_seconds) for name, values in arguments.items()}

    def _call(self, function: Callable[..., Any], values: tuple[Any, ...], timeout_seconds: float) -> Any:
        try:
            self._connection.send((function, values))
            if not self._connection.poll(timeout_seconds):
                self._process.kill()
                return NoAnswer(f"no answer within {timeout_seconds:.0f} s")
            return self._connection.recv()
        except (EOFError, OSError):
            return NoAnswer("the process that runs the checks has ended")


def _serve(connection: Connection) -> None:
    """Answers calls until the connection closes."""
    while True:
        try:
            function, values = connection.recv()
        except EOFError:
            return
        try:
            result = function(*values)
        except Exception as error:
            result = NoAnswer(f"{type(error).__name__}: {error}")
        connection.send(result)
