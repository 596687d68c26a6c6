"""A Ray cluster of one host that a test starts and kills."""

import contextlib
import socket
import subprocess
import sys
from pathlib import Path

import psutil

ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}


class RayHead:
    """The processes of `ray start --head` on loopback, found by their folder; a context manager that kills them.

    Attributes:
        address: HOST:PORT of the head.
        environment: Variables for programs that connect to it.
    """

    def __init__(self, workplace):
        self._workplace = workplace
        self._folder = workplace.temporary / "head"
        with socket.create_server(("127.0.0.1", 0)) as server:
            self._port = server.getsockname()[1]
        self.address = f"127.0.0.1:{self._port}"
        self.environment = {"HOME": str(workplace.home), "PATH": "/usr/bin:/bin", **ENVIRONMENT}

    def __enter__(self):
        options = {
            "port": self._port,
            "node-ip-address": "127.0.0.1",
            "num-cpus": 3,
            "include-dashboard": "false",
            "object-store-memory": 100 * 2**20,
            "temp-dir": self._folder,
        }
        command = [str(Path(sys.executable).with_name("ray")), "start", "--head"]
        command += [f"--{name}={value}" for name, value in options.items()]
        subprocess.run(command, env=self.environment, check=True, capture_output=True, timeout=120)
        return self

    def __exit__(self, *exception):
        while left := self._processes():
            for process in left:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            psutil.wait_procs(left, timeout=5)

    def kill_store(self):
        """Kills the process that keeps what the cluster knows."""
        for process in self._processes("gcs_server"):
            process.kill()
            process.wait(10)

    def _processes(self, name=""):
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if str(self._folder) in " ".join(process.cmdline()) and name in process.name():
                    found.append(process)
        return found
