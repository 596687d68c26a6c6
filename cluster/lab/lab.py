"""A lab: starting, inspecting, breaking and removing its hosts."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from cluster.lab import ray_node
from cluster.lab.entering import command_on, hide
from cluster.lab.errors import LabError
from cluster.lab.interrupts import interrupts_held
from cluster.lab.leaving import await_departure, drain, end_host, take_down
from cluster.lab.machine import MAX_HOSTS, check_folder, check_machine, check_name
from cluster.lab.network import Network, choose_subnet, parse_rate
from cluster.lab.processes import Process, list_pids, read_command, runs_ray
from cluster.lab.starting import Report, start_hosts
from cluster.lab.state import Host, LabState, StateFile
from cluster.lab.status import describe

DEFAULT_NAME = "lab"
FOLDER_VARIABLE = "DISTRIB_LAB_FOLDER"

Stream = int | IO[Any] | None


def _ignore(_: str) -> None:
    """Ignores reports."""


class Lab:
    """The hosts of one lab. `Lab.up` starts a lab, `Lab.find` finds a running one.

    Attributes:
        name: Distinguishes it from other labs on this machine.
        folder: Contains its state and the Ray files and logs of every host.
    """

    def __init__(self, name: str = DEFAULT_NAME, folder: Path | str | None = None) -> None:
        check_name(name)
        self.name = name
        base = folder or os.environ.get(FOLDER_VARIABLE) or Path(tempfile.gettempdir(), "distrib-lab")
        self.folder = Path(base).absolute() / name
        self._file = StateFile(self.folder)
        self._network = Network(name)

    @classmethod
    def up(
        cls,
        hosts: int,
        *,
        cpus: int = 2,
        gpus: int = 0,
        has_bare_head: bool = False,
        rate: str | None = None,
        hidden: Sequence[tuple[str, str]] = (),
        names: str = "loopback",
        is_ipv6: bool = False,
        has_ray: bool = True,
        name: str = DEFAULT_NAME,
        folder: Path | str | None = None,
        report: Report = _ignore,
    ) -> Lab:
        """Starts a lab and waits until Ray runs on all of its hosts; removes it if that fails.

        Args:
            hosts: The number of hosts.
            cpus: CPUs that each host reports to Ray.
            gpus: Simulated GPUs that each host reports to Ray.
            has_bare_head: Whether the head reports no CPUs or GPUs, so that workers run on other hosts.
            rate: The bandwidth limit of each link in each direction, such as `200mbit`.
            hidden: Pairs of a host and a folder to hide from it.
            names: What a host's own name resolves to: `loopback`, as on Debian and Ubuntu, or its `address`.
            is_ipv6: Whether to use IPv6 addresses.
            has_ray: Whether to start Ray; hosts without it start within a second.
            name: The lab's name.
            folder: The parent of the lab's folder; by default in the system's temporary folder.
            report: Called with a line for each host that has started.

        Raises:
            LabError: The machine cannot run a lab, the name is in use, an argument is wrong, or Ray does not start.
        """
        lab = cls(name, folder)
        check_machine()
        check_folder(lab.folder)
        if not 1 <= hosts <= MAX_HOSTS:
            raise LabError(f"a lab has from 1 to {MAX_HOSTS} hosts, not {hosts}")
        if rate is not None:
            parse_rate(rate)
        subnet = choose_subnet(name, is_ipv6=is_ipv6)
        state = LabState(name, str(subnet), rate, names, has_ray, builders=[_this_process()])
        state.hosts = [Host(number, str(state.address(number)), cpus, gpus) for number in range(1, hosts + 1)]
        if has_bare_head:
            state.hosts[0].num_cpus = state.hosts[0].num_gpus = 0
        for host, path in hidden:
            state.host(host).hidden.append(str(Path(path).absolute()))
            if not Path(path).is_dir():
                raise LabError(f"{path} cannot be hidden from {host}: there is no such folder")
        if lab._network.exists and not lab.folder.exists():
            raise LabError(
                f"there are remains of a lab {name!r}, or its files are in another --folder; "
                f"remove it with python -m cluster.lab down --name {name}"
            )
        with interrupts_held() as release:
            lab._file.create(state)
            try:
                release()  # now that what is there is taken down
                if has_ray:
                    with lab._file.change() as state:
                        state.token_file = ray_node.make_token(lab.folder / "ray_token")
                lab._network.add_switch(subnet)
                start_hosts(lab._file, lab._network, state.hosts, report)
                with lab._file.change() as state:
                    state.status = "up"
                    state.builders = []
            except BaseException:
                lab.down()
                raise
        return lab

    @classmethod
    def find(cls, name: str = DEFAULT_NAME, folder: Path | str | None = None) -> Lab:
        """Finds a running lab.

        Raises:
            LabError: There is none.
        """
        lab = cls(name, folder)
        check_machine()
        lab._file.require()
        return lab

    @property
    def address(self) -> str:
        """The URL of Ray Jobs and the dashboard on the head.

        Raises:
            LabError: The lab has no Ray.
        """
        return ray_node.dashboard_url(self._with_ray().head_address)

    @property
    def ray_address(self) -> str:
        """The address for `ray.init` on a host, as `ADDRESS:PORT`."""
        return ray_node.join(self._with_ray().head_address, ray_node.GCS_PORT)

    @property
    def token_file(self) -> str | None:
        """The file with the token that Ray asks of its clients; None if it admits everyone."""
        return self._file.require().token_file

    @property
    def hosts(self) -> list[str]:
        """The names of all hosts, including those that are gone, the head first."""
        return [host.name for host in self._file.require().hosts]

    def host_address(self, host: str) -> str:
        """The address of a host."""
        return self._file.require().host(host).address

    def status(self) -> dict[str, Any]:
        """The lab as `status --json` shows it."""
        return describe(self._file, self._network)

    def processes(self, host: str) -> dict[int, str]:
        """The command lines of the processes on a host, by their PID on the machine."""
        self._file.require().host(host)
        return {pid: read_command(pid) for pid in list_pids(self._network.namespace(host))}

    def command(self, host: str, command: Sequence[str], folder: Path | str | None = None) -> list[str]:
        """The command line for this machine that runs `command` on a host, in `folder` or the current one.

        Raises:
            LabError: There is no such host, or it is down.
        """
        return command_on(self._file.require().host(host), command, folder or Path.cwd())

    def environment(self, environment: Mapping[str, str] | None = None) -> dict[str, str]:
        """The caller's environment, or `environment`, plus the variables that point to the lab's Ray cluster."""
        state = self._file.require()
        given = os.environ if environment is None else environment
        return ray_node.command_environment(given, state)

    def popen(
        self,
        host: str,
        command: Sequence[str],
        *,
        folder: Path | str | None = None,
        environment: Mapping[str, str] | None = None,
        stdout: Stream = None,
        stderr: Stream = None,
    ) -> subprocess.Popen[str]:
        """Starts a command on a host; signals are forwarded to it, and the process ends with its exit code."""
        return subprocess.Popen(
            self.command(host, command, folder),
            env=self.environment(environment),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            text=True,
        )

    def exec(
        self,
        host: str,
        command: Sequence[str],
        *,
        folder: Path | str | None = None,
        environment: Mapping[str, str] | None = None,
        timeout_seconds: float = 60.0,
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command on a host and returns its exit code and output.

        Raises:
            subprocess.TimeoutExpired: It took longer and was killed.
        """
        with self.popen(
            host, command, folder=folder, environment=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            try:
                out, err = process.communicate(timeout=timeout_seconds)
            except BaseException:
                process.kill()
                raise
        return subprocess.CompletedProcess(list(command), process.returncode, out, err)

    def kill(self, host: str) -> None:
        """Kills all processes of a host with SIGKILL."""
        with self._file.change() as state:
            killed = state.host(host)
            killed.status = "killed"
        end_host(self._network, killed)

    def cut(self, host: str) -> None:
        """Silently drops all packets from and to a host; connections are not reset."""
        with self._file.change() as state:
            state.host(host).is_cut = True
            self._network.cut(host)

    def heal(self, host: str) -> None:
        """Undoes `cut`."""
        with self._file.change() as state:
            state.host(host).is_cut = False
            self._network.heal(host)

    def hide(self, host: str, path: Path | str) -> None:
        """Hides `path` from a host, including its running processes, behind an empty folder."""
        path = str(Path(path).absolute())
        hide(self._file.require().host(host), path)
        with self._file.change() as state:
            state.host(host).hidden.append(path)

    def join(
        self,
        host: str | None = None,
        *,
        cpus: int | None = None,
        gpus: int | None = None,
        report: Report = _ignore,
    ) -> str:
        """Adds a host, or restarts one that was killed, has left or has lost its Ray node; returns its name.

        Args:
            host: The host to restart; None adds a new one.
            cpus: CPUs to report to Ray; by default as before, or like the last host.
            gpus: Simulated GPUs to report to Ray; likewise.
            report: Called with a line once it has started.

        Raises:
            LabError: The host is already running, or does not start.
        """
        with self._file.change() as state:
            if state.status != "up":
                raise LabError(f"lab {state.name!r} is still starting; wait until up has ended")
            joining = _next_host(state) if host is None else self._host_to_revive(state, host)
            joining.status, joining.is_cut = "starting", False
            joining.num_cpus = joining.num_cpus if cpus is None else cpus
            joining.num_gpus = joining.num_gpus if gpus is None else gpus
            state.builders.append(_this_process())
        status = "failed"
        try:
            end_host(self._network, joining)
            start_hosts(self._file, self._network, [joining], report)
            status = "up"
        finally:
            if status == "failed":
                end_host(self._network, joining)
            with self._file.change() as state:
                state.host(joining.name).status = status
                state.builders.remove(_this_process())
        return joining.name

    def leave(self, host: str, *, deadline_seconds: float = 30.0, wait: bool = True) -> None:
        """Notifies Ray of the removal of a host, like a cloud's preemption notice, and removes it at the deadline.

        A host on which nothing runs anymore is removed earlier.

        Args:
            host: Any host except the head.
            deadline_seconds: Seconds from now.
            wait: Whether to wait until it is gone; it is removed in either case.

        Raises:
            LabError: It is the head, it is down, or Ray refuses.
        """
        leaving = self._with_ray().host(host)
        if leaving.number == 1:
            raise LabError("host1 is the head and cannot be drained; kill it, or remove the lab with down")
        command_on(leaving, [], "/")  # raises if the host is down
        deadline = drain(self._file, leaving, self.environment(), deadline_seconds)
        with self._file.change() as state:
            state.host(host).status = "leaving"
        if wait:
            await_departure(self._network, leaving, deadline)
            with self._file.change() as state:
                state.host(host).status = "left"
            end_host(self._network, leaving)

    def down(self) -> bool:
        """Removes the lab completely, including the remains of a broken one.

        Returns:
            Whether there was anything to remove.

        Raises:
            LabError: A process does not end.
        """
        check_machine()
        return take_down(self._file, self._network, _this_process())

    def _host_to_revive(self, state: LabState, name: str) -> Host:
        host = state.host(name)
        if host.is_alive and (not state.has_ray or runs_ray(self._network.namespace(name))):
            raise LabError(f"{name} is already running; leave out its name to add another host")
        return host

    def _with_ray(self) -> LabState:
        state = self._file.require()
        if not state.has_ray:
            raise LabError(f"lab {self.name!r} was started without Ray")
        return state


def _next_host(state: LabState) -> Host:
    number = len(state.hosts) + 1
    if number > MAX_HOSTS:
        raise LabError(f"a lab has at most {MAX_HOSTS} hosts")
    last = state.hosts[-1]
    host = Host(number, str(state.address(number)), last.num_cpus, last.num_gpus)
    state.hosts.append(host)
    return host


def _this_process() -> Process:
    process = Process.of(os.getpid())
    assert process is not None
    return process
