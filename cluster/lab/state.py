"""The state of a lab, in a file that is updated before every change."""

from __future__ import annotations

import fcntl
import ipaddress
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from cluster.lab.errors import LabError
from cluster.lab.processes import Process
from distrib.runs.files.atomic import atomic_write

_NAME = "lab.json"

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Subnet = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass
class Host:
    """One host of a lab.

    Attributes:
        number: From 1, which is the head.
        status: starting | up | failed | leaving | left | killed; what was last done to it.
        is_cut: Whether its link drops all packets.
        hidden: Folders hidden from it.
        first: The init process; None before it has started.
    """

    number: int
    address: str
    num_cpus: int
    num_gpus: int
    status: str = "starting"
    is_cut: bool = False
    hidden: list[str] = field(default_factory=list)
    first: Process | None = None

    @property
    def name(self) -> str:
        """`host1`, `host2`, …"""
        return f"host{self.number}"

    @property
    def is_alive(self) -> bool:
        """Whether the host's processes run."""
        return self.first is not None and self.first.is_alive


@dataclass
class LabState:
    """The state of a whole lab.

    Attributes:
        subnet: Its address range; the machine itself has the last address.
        rate: The bandwidth limit of each link in the notation of `tc`; None for no limit.
        names: loopback | address; what a host's own name resolves to.
        has_ray: Whether Ray runs on the hosts.
        token_file: The file with the token that Ray requires from clients; None for no authentication.
        status: starting | up | going.
        builders: Processes that currently run `up` or `join`.
    """

    name: str
    subnet: str
    rate: str | None
    names: str
    has_ray: bool = True
    token_file: str | None = None
    status: str = "starting"
    hosts: list[Host] = field(default_factory=list)
    builders: list[Process] = field(default_factory=list)

    def host(self, name: str) -> Host:
        """The host with this name.

        Raises:
            LabError: There is none.
        """
        for host in self.hosts:
            if host.name == name:
                return host
        known = ", ".join(host.name for host in self.hosts)
        raise LabError(f"there is no host {name!r} in lab {self.name!r}; it has {known or 'none yet'}")

    @property
    def network(self) -> Subnet:
        """The address range."""
        return ipaddress.ip_network(self.subnet)

    def address(self, number: int) -> Address:
        """The address of the host with this number, from 1."""
        return self.network.network_address + number

    @property
    def head_address(self) -> str:
        """The address of the head, which runs Ray's services."""
        return str(self.address(1))


class StateFile:
    """The folder of a lab and its state file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def create(self, state: LabState) -> None:
        """Creates the folder and writes the initial state.

        Raises:
            LabError: The folder already exists.
        """
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            self.folder.mkdir()
        except FileExistsError:
            raise LabError(
                f"there is already a lab {state.name!r}; remove it first (python -m cluster.lab down "
                f"--name {state.name}), or use another --name"
            ) from None
        self._write(state)

    def read(self) -> LabState | None:
        """The state; None if there is no lab or it has not written its state yet."""
        try:
            record = json.loads((self.folder / _NAME).read_bytes())
        except (OSError, ValueError):
            return None
        hosts = [Host(**{**host, "first": _process(host["first"])}) for host in record.pop("hosts")]
        builders = [Process(**builder) for builder in record.pop("builders")]
        return LabState(**record, hosts=hosts, builders=builders)

    def require(self) -> LabState:
        """The state.

        Raises:
            LabError: There is no lab.
        """
        state = self.read()
        if state is None:
            raise missing(self.folder)
        return state

    def host_folder(self, host: str) -> Path:
        """The folder for a host's own files."""
        return self.folder / host

    def ray_folder(self, host: str) -> Path:
        """The folder for Ray's temporary files and logs of a host."""
        return self.folder / host / "ray"

    @contextmanager
    def change(self) -> Iterator[LabState]:
        """Yields the state to change it under a lock; writes it at the end.

        Raises:
            LabError: There is no lab, or it is being removed.
        """
        try:
            descriptor = os.open(self.folder, os.O_RDONLY)
        except OSError:
            raise missing(self.folder) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            state = self.require()
            if state.status == "going":
                raise LabError(f"lab {state.name!r} is being removed")
            yield state
            self._write(state)
        finally:
            os.close(descriptor)

    @property
    def exists(self) -> bool:
        """Whether the folder belongs to a lab, including one whose start was interrupted."""
        try:
            names = os.listdir(self.folder)
        except OSError:
            return False
        return _NAME in names or all(name.startswith(f".{_NAME}.") for name in names)

    def remove(self) -> None:
        """Removes the folder if it belongs to a lab, and its parent if no other lab is left."""
        if not self.exists:
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        with suppress(OSError):
            self.folder.parent.rmdir()

    def _write(self, state: LabState) -> None:
        atomic_write(self.folder / _NAME, json.dumps(asdict(state), indent=1))


def missing(folder: Path) -> LabError:
    """The error that there is no lab in `folder`."""
    return LabError(
        f"there is no lab {folder.name!r} in {folder.parent}; start one with python -m cluster.lab up, "
        "or select one with --name and --folder"
    )


def _process(record: dict[str, object] | None) -> Process | None:
    return None if record is None else Process(int(str(record["pid"])), str(record["start_time"]))
