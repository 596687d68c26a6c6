"""Starts `distrib serve` in its own process and sends requests on loopback, with time limits."""

import contextlib
import socket
import sys

import httpx


class Service:
    """A service that is up.

    Attributes:
        launch: Its process.
        url: Where it listens.
    """

    def __init__(self, workplace, run, *options, env=None, host="127.0.0.1"):
        command = [sys.executable, "-m", "distrib", "serve", run, "--runs-dir", str(workplace.runs), "--port", "0"]
        self.launch = workplace.start_command([*command, *map(str, options)], env)
        self.launch.wait_until(lambda: "; Ctrl-C stops it" in self.launch.stdout)
        self.port = int(self.launch.stdout.split("/predict")[0].rpartition(":")[2])
        self.url = f"http://{host}:{self.port}"

    def client(self, **options):
        return httpx.Client(base_url=self.url, timeout=60, trust_env=False, **options)

    @contextlib.contextmanager
    def connection(self):
        """A bare connection, to speak badly on."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as connection:
            yield connection


def read_to_end(connection):
    """All that comes until the other side closes."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while data := connection.recv(65536):
            received += data
    return received.decode()
