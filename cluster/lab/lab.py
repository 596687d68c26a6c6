"""A lab, from its first host to its last trace."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from cluster.lab import ray_node
from cluster.lab.errors import LabError
from cluster.lab.machine import MAX_HOSTS, check_folder, check_machine, check_name
from cluster.lab.network import Network, choose_subnet, host_address, parse_rate
from cluster.lab.processes import Process, kill_all, list_pids, read_command
from cluster.lab.state import Host, LabState, StateFile, missing

DEFAULT_NAME = "lab"
FOLDER_VARIABLE = "DISTRIB_LAB_FOLDER"
_INSIDE = [sys.executable, "-I", "-S", str(Path(__file__).with_name("inside.py"))]
_START_SECONDS = 120.0
_POLL_SECONDS = 0.05

Report = Callable[[str], None]
Stream = int | IO[Any] | None


def _say_nothing(_: str) -> None:
    """What reports go to where nobody listens."""


class Lab:
    """The hosts of one lab; make one with `Lab.up`, find one with `Lab.find`.

    Attributes:
        name: Tells it from other labs of this machine.
        folder: Its state, and every host's Ray files and logs.
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
        rate: str | None = None,
        hide: Sequence[tuple[str, str]] = (),
        names: str = "loopback",
        is_ipv6: bool = False,
        name: str = DEFAULT_NAME,
        folder: Path | str | None = None,
        report: Report = _say_nothing,
    ) -> Lab:
        """Starts a lab, and returns once Ray runs on all of its hosts; where that fails, nothing is left of it.

        Args:
            hosts: How many.
            cpus: What each tells Ray that it has.
            gpus: The same, of pretend GPUs.
            rate: What each link is limited to in each direction, such as `200mbit`.
            hide: Pairs of a host and a folder in whose place this host sees an empty one of its own.
            names: What a host's own name resolves to: `loopback`, as on Debian and Ubuntu, or its `address`.
            is_ipv6: Whether the addresses are of IPv6.
            name: The lab's name.
            folder: Where the lab's own folder is made; by default in the system's folder for temporary files.
            report: Called with a line for each host that has started.

        Raises:
            LabError: The machine cannot carry it, the name is taken, an argument is wrong, or Ray does not start.
        """
        lab = cls(name, folder)
        check_machine()
        check_folder(lab.folder)
        if not 1 <= hosts <= MAX_HOSTS:
            raise LabError(f"a lab has from 1 to {MAX_HOSTS} hosts, not {hosts}")
        if rate is not None:
            parse_rate(rate)
        subnet = choose_subnet(name, is_ipv6=is_ipv6)
        state = LabState(name, str(subnet), rate, names, builders=[_this_process()])
        planned = [Host(number, str(host_address(subnet, number)), cpus, gpus) for number in range(1, hosts + 1)]
        state.hosts = planned
        for host, path in hide:
            state.host(host)
            if not Path(path).is_dir():
                raise LabError(f"--hide {path}:{host}: there is no folder {path}")
        if lab._network.exists and not lab.folder.exists():
            raise LabError(
                f"there are remains of a lab {name!r}; remove them with python -m cluster.lab down --name {name}"
            )
        lab._file.create(state)
        try:
            lab._network.add_switch(subnet)
            lab._start(planned, hide, report)
            with lab._file.change() as state:
                state.status = "up"
                state.builders = []
        except BaseException:
            lab.down()
            raise
        return lab

    @classmethod
    def find(cls, name: str = DEFAULT_NAME, folder: Path | str | None = None) -> Lab:
        """The lab that is there already.

        Raises:
            LabError: There is none.
        """
        lab = cls(name, folder)
        check_machine()
        lab._state()
        return lab

    @property
    def address(self) -> str:
        """Where Ray Jobs and the dashboard of the head answer, as `http://…`."""
        return f"http://{ray_node.join(self._head_address, ray_node.DASHBOARD_PORT)}"

    @property
    def ray_address(self) -> str:
        """What `ray.init` is given on a host, as `HOST:PORT`."""
        return ray_node.join(self._head_address, ray_node.GCS_PORT)

    @property
    def hosts(self) -> list[str]:
        """The names of all hosts that there ever were, the head first."""
        return [host.name for host in self._state().hosts]

    def host_address(self, host: str) -> str:
        """A host's own address."""
        return self._state().host(host).address

    def status(self) -> dict[str, Any]:
        """The lab as `status --json` shows it."""
        state = self._state()
        return {
            "name": state.name,
            "status": state.status,
            "address": self.address,
            "ray_address": self.ray_address,
            "folder": str(self.folder),
            "subnet": state.subnet,
            "rate": state.rate,
            "hosts": [
                {
                    "name": host.name,
                    "address": host.address,
                    "status": _describe(host),
                    "is_head": host.number == 1,
                    "cpus": host.num_cpus,
                    "gpus": host.num_gpus,
                    "processes": len(list_pids(self._network.namespace(host.name))),
                    "logs": str(self._ray_folder(host) / "session_latest" / "logs"),
                }
                for host in state.hosts
            ],
        }

    def processes(self, host: str) -> dict[int, str]:
        """The command lines of the processes on a host, by their number outside of it."""
        self._state().host(host)
        return {pid: read_command(pid) for pid in list_pids(self._network.namespace(host))}

    def command(self, host: str, command: Sequence[str], folder: Path | str | None = None) -> list[str]:
        """The command that, run on this machine, runs `command` on a host, in `folder` or where the caller is.

        Raises:
            LabError: There is no such host, or it is down.
        """
        first = self._living(host).first
        assert first is not None
        return [*_INSIDE, "run", str(first.pid), first.start_time, str(folder or Path.cwd()), *command]

    def environment(self, environment: Mapping[str, str] | None = None) -> dict[str, str]:
        """The caller's environment, or `environment`, with what is needed to find the lab's Ray."""
        given = os.environ if environment is None else environment
        return ray_node.command_environment(given, self._head_address, self._state().network)

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
        """Starts a command on a host; signals that are sent to it reach the command, and it ends as that ends."""
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
        """Runs a command on a host to its end, which may be a failure; what it printed is in the result.

        Raises:
            subprocess.TimeoutExpired: It took longer; it is ended.
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
        """Ends all processes of a host at once, by SIGKILL."""
        with self._file.change() as state:
            state.host(host).status = "killed"
        self._end(state.host(host))

    def cut(self, host: str) -> None:
        """Drops everything to and from a host; no connection is reset, and neither side is told."""
        self._set_cut(host, is_cut=True)

    def heal(self, host: str) -> None:
        """Undoes `cut`."""
        self._set_cut(host, is_cut=False)

    def hide(self, host: str, path: Path | str) -> None:
        """Lets a host see an empty folder of its own in place of `path`; so do its processes that run already."""
        done = self.exec(host, ["mount", "-t", "tmpfs", "distrib-lab", str(path)], folder="/")
        if done.returncode != 0:
            raise LabError(f"cannot hide {path} from {host}: {done.stderr.strip()}")

    def join(
        self,
        host: str | None = None,
        *,
        cpus: int | None = None,
        gpus: int | None = None,
        report: Report = _say_nothing,
    ) -> str:
        """Adds a host, or starts one anew that was killed or has left; returns its name.

        Args:
            host: Which one to start anew; None: the next.
            cpus: What it tells Ray that it has; by default what the head has.
            gpus: The same, of pretend GPUs.
            report: Called with a line once it has started.
        """
        with self._file.change() as state:
            if state.status != "up":
                raise LabError(f"lab {state.name!r} is not up yet; wait until up has ended")
            if host is None:
                number = len(state.hosts) + 1
                if number > MAX_HOSTS:
                    raise LabError(f"a lab has at most {MAX_HOSTS} hosts")
                head = state.hosts[0]
                joined = Host(number, str(host_address(state.network, number)), head.num_cpus, head.num_gpus)
                state.hosts.append(joined)
            else:
                joined = state.host(host)
                if joined.is_alive:
                    raise LabError(f"{host} runs already; leave out its name to add another host")
                joined.status = "starting"
            joined.num_cpus = joined.num_cpus if cpus is None else cpus
            joined.num_gpus = joined.num_gpus if gpus is None else gpus
            state.builders.append(_this_process())
        try:
            if joined.is_cut:
                self.heal(joined.name)
            self._start([joined], (), report)
        except BaseException:
            self._end(joined)
            joined.status = "failed"
            self._record(joined)
            raise
        finally:
            with self._file.change() as state:
                state.builders.remove(_this_process())
        return joined.name

    def leave(self, host: str, *, deadline_seconds: float = 30.0, wait: bool = True) -> None:
        """Lets Ray know that a host is about to be taken away, as clouds do; and takes it away at the deadline.

        A host on which nothing runs any more goes sooner.

        Args:
            host: Any but the head.
            deadline_seconds: How long from now.
            wait: Whether to return when it is gone, or at once; then it still goes at the deadline.
        """
        leaving = self._living(host)
        if leaving.number == 1:
            raise LabError("host1 is the head and cannot be drained; kill it, or take the lab down")
        deadline = time.monotonic() + deadline_seconds
        self._drain(leaving, deadline_seconds)
        with self._file.change() as state:
            state.host(host).status = "leaving"
        first = leaving.first
        assert first is not None
        (self.folder / host / "deadline").write_text(repr(deadline))
        os.kill(first.pid, signal.SIGUSR1)
        if wait:
            while first.is_alive and self._has_raylet(leaving) and time.monotonic() < deadline:
                time.sleep(_POLL_SECONDS)
            with self._file.change() as state:
                state.host(host).status = "left"
            self._end(leaving)

    def down(self) -> None:
        """Takes the lab down, however much of it there is; nothing of it is left.

        Raises:
            LabError: A process of it does not end.
        """
        check_machine()
        try:
            with self._file.change() as state:
                state.status = "going"
        except LabError:
            pass  # there is none, or nothing but remains, or another process is at it too
        remains = self._file.read()
        for builder in remains.builders if remains else []:
            if builder != _this_process():
                builder.kill()
        for host in remains.hosts if remains else []:
            if host.first is not None:
                host.first.kill()
        for namespace in self._network.namespaces:
            if not kill_all(namespace):
                raise LabError(f"a process in {namespace.name} does not end; run down again, or see ip netns pids")
        self._network.remove()
        self._file.remove()

    def _start(self, hosts: list[Host], hide: Sequence[tuple[str, str]], report: Report) -> None:
        """Starts hosts and their Ray, the head's first and the others' together; tells of each as it runs."""
        for host in hosts:
            self._start_host(host)
            for name, path in hide:
                if name == host.name:
                    self.hide(name, path)
        started: dict[str, subprocess.Popen[str]] = {}
        waiting = sorted(hosts, key=lambda host: host.number)
        begun = time.monotonic()
        try:
            while waiting:
                for host in list(waiting):
                    if host.name not in started and (host.number == 1 or self._head_accepts()):
                        started[host.name] = self._start_ray(host)
                    elif host.name in started and self._is_ready(host, started[host.name].poll()):
                        waiting.remove(host)
                        host.status = "up"
                        self._record(host)
                        report(f"{host.name}  {host.address}  up after {time.monotonic() - begun:.1f} s")
                if waiting and time.monotonic() - begun > _START_SECONDS:
                    raise LabError(f"Ray on {waiting[0].name} did not start in {_START_SECONDS:g} s")
                time.sleep(_POLL_SECONDS)
        finally:
            for process in started.values():
                if process.poll() is None:
                    process.kill()
                process.wait()

    def _start_host(self, host: Host) -> None:
        state = self._state()
        folder = self.folder / host.name
        folder.mkdir(exist_ok=True)
        (folder / "hosts").write_text(_names(state, host))
        (folder / "deadline").unlink(missing_ok=True)
        self._network.add_host(host.name, host_address(state.network, host.number), state.network, state.rate)
        namespace = self._network.namespace(host.name)
        done = subprocess.run(
            [*_INSIDE, "start", str(namespace), host.name, str(folder)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise LabError(f"this machine does not allow the namespaces of {host.name}: {_last_line(done.stderr)}")
        host.first = Process.of(int(done.stdout))
        self._record(host)

    def _start_ray(self, host: Host) -> subprocess.Popen[str]:
        state = self._state()
        command = ray_node.start_command(host, self._head_address, self._ray_folder(host))
        with open(self.folder / host.name / "start.log", "w") as log:
            return subprocess.Popen(
                self.command(host.name, command, self.folder / host.name),
                env=ray_node.node_environment(host, self._head_address, state.network),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )

    def _head_accepts(self) -> bool:
        """Whether others can be started: the head need not be ready for that."""
        try:
            socket.create_connection((self._head_address, ray_node.GCS_PORT), timeout=1).close()
        except OSError:
            return False
        return True

    def _is_ready(self, host: Host, code: int | None) -> bool:
        if code is None:
            return False
        if code != 0:
            log = (self.folder / host.name / "start.log").read_text(errors="replace").strip()
            raise LabError(f"Ray on {host.name} did not start:\n{log[-2000:]}")
        return host.number != 1 or ray_node.dashboard_answers(self.address)

    def _drain(self, host: Host, deadline_seconds: float) -> None:
        node_id = ray_node.find_node_id(self.address, host.address)
        if node_id is None:
            raise LabError(f"Ray knows of no living node on {host.name}; see {self.address}")
        done = subprocess.run(
            ray_node.drain_command(self.ray_address, node_id, deadline_seconds),
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise LabError(f"Ray does not let {host.name} go: {_last_line(done.stderr)}")

    def _has_raylet(self, host: Host) -> bool:
        return any("/raylet/raylet " in command for command in self.processes(host.name).values())

    def _end(self, host: Host) -> None:
        if host.first is not None:
            host.first.kill()
        kill_all(self._network.namespace(host.name))

    def _set_cut(self, name: str, *, is_cut: bool) -> None:
        with self._file.change() as state:
            state.host(name).is_cut = is_cut
        (self._network.cut if is_cut else self._network.heal)(name)

    def _record(self, host: Host) -> None:
        """Writes what has become of a host that is being started."""
        with self._file.change() as state:
            stored = state.host(host.name)
            stored.status, stored.first = host.status, host.first

    def _living(self, name: str) -> Host:
        host = self._state().host(name)
        if not host.is_alive:
            raise LabError(f"{name} is down; start it anew with python -m cluster.lab join {name}")
        return host

    def _state(self) -> LabState:
        state = self._file.read()
        if state is None:
            raise missing(self.folder)
        return state

    @property
    def _head_address(self) -> str:
        return str(host_address(self._state().network, 1))

    def _ray_folder(self, host: Host) -> Path:
        return self.folder / host.name / "ray"


def _this_process() -> Process:
    process = Process.of(os.getpid())
    assert process is not None
    return process


def _describe(host: Host) -> str:
    """A host's status in a word: what was last done to it, and what has happened since."""
    if host.is_alive:
        return "cut" if host.is_cut else host.status
    return {"leaving": "left", "up": "died"}.get(host.status, host.status)


def _names(state: LabState, host: Host) -> str:
    """A host's `/etc/hosts`: all that can ever join, so that it need not change."""
    lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost"]
    if state.names == "loopback":
        lines.append(f"127.0.1.1 {host.name}")
    for number in range(1, MAX_HOSTS + 1):
        if number != host.number or state.names == "address":
            lines.append(f"{host_address(state.network, number)} host{number}")
    return "\n".join(lines) + "\n"


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "no reason given"
