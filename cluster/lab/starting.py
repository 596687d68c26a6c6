"""Starts hosts: namespaces and link, init process, Ray."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable, Sequence

from cluster.lab import ray_node
from cluster.lab.entering import DEADLINE_FILE, command_on, hide, start_first_process
from cluster.lab.errors import LabError
from cluster.lab.machine import MAX_HOSTS
from cluster.lab.network import Network
from cluster.lab.state import Host, LabState, StateFile

_START_SECONDS = 120.0
_POLL_SECONDS = 0.05

Report = Callable[[str], None]


def start_hosts(file: StateFile, network: Network, hosts: Sequence[Host], report: Report) -> None:
    """Creates hosts and, if the lab uses Ray, starts it on all of them in parallel, once the head accepts connections.

    Args:
        file: The lab's state, which already lists the hosts.
        network: The lab's network with its switch.
        hosts: The hosts to start.
        report: Called with a line for each host as soon as Ray runs on it.

    Raises:
        LabError: The machine does not allow it, or Ray does not start; remains of the hosts may be left.
    """
    started_at = time.monotonic()
    for host in hosts:
        _make(file, network, host)
        if not file.require().has_ray:
            _record(file, host, "up")
            report(f"{host.name}  {host.address}  up")
    if file.require().has_ray:
        _start_rays(file, hosts, started_at, report)


def _start_rays(file: StateFile, hosts: Sequence[Host], started_at: float, report: Report) -> None:
    """Starts Ray on hosts and waits until it runs on all of them."""
    started: dict[str, subprocess.Popen[str]] = {}
    waiting = list(hosts)
    try:
        while waiting:
            for host in list(waiting):
                if host.name not in started and (host.number == 1 or _head_accepts(file.require().head_address)):
                    started[host.name] = _start_ray(file, host)
                elif host.name in started and _is_ready(file, host, started[host.name].poll()):
                    waiting.remove(host)
                    _record(file, host, "up")
                    report(f"{host.name}  {host.address}  up after {time.monotonic() - started_at:.1f} s")
            if waiting and time.monotonic() - started_at > _START_SECONDS:
                raise LabError(f"Ray on {waiting[0].name} did not start in {_START_SECONDS:g} s")
            time.sleep(_POLL_SECONDS)
    finally:
        for process in started.values():
            process.kill()
            process.wait()


def _make(file: StateFile, network: Network, host: Host) -> None:
    """Creates a host with its link and init process."""
    state = file.require()
    folder = file.host_folder(host.name)
    folder.mkdir(exist_ok=True)
    (folder / "hosts").write_text(_names(state, host))
    (folder / DEADLINE_FILE).unlink(missing_ok=True)
    network.add_host(host.name, state.address(host.number), state.network, state.rate)
    host.first = start_first_process(host, network.namespace(host.name), folder)
    _record(file, host, "starting")
    for path in host.hidden:
        hide(host, path)


def _start_ray(file: StateFile, host: Host) -> subprocess.Popen[str]:
    state = file.require()
    folder = file.host_folder(host.name)
    command = ray_node.start_command(host, state, file.ray_folder(host.name))
    with open(folder / "start.log", "w") as log:
        return subprocess.Popen(
            command_on(host, command, folder),
            env=ray_node.node_environment(host, state),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )


def _head_accepts(address: str) -> bool:
    """Whether the head accepts other nodes; it is not fully ready then."""
    try:
        socket.create_connection((address, ray_node.GCS_PORT), timeout=1).close()
    except OSError:
        return False
    return True


def _is_ready(file: StateFile, host: Host, exit_code: int | None) -> bool:
    """Whether Ray runs, given the exit code of its start command, or None if it still runs."""
    if exit_code is None:
        return False
    if exit_code != 0:
        log = (file.host_folder(host.name) / "start.log").read_text(errors="replace").strip()
        raise LabError(f"Ray on {host.name} did not start:\n{log[-2000:]}")
    return host.number != 1 or ray_node.dashboard_answers(file.require())


def _record(file: StateFile, host: Host, status: str) -> None:
    """Writes only the status and init process of a host, since others may have changed the rest."""
    with file.change() as state:
        stored = state.host(host.name)
        stored.status, stored.first = status, host.first


def _names(state: LabState, host: Host) -> str:
    """A host's `/etc/hosts`: all possible hosts, so that it never has to change."""
    lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost"]
    if state.names == "loopback":
        lines.append(f"127.0.1.1 {host.name}")
    for number in range(1, MAX_HOSTS + 1):
        if number != host.number or state.names == "address":
            lines.append(f"{state.address(number)} host{number}")
    return "\n".join(lines) + "\n"
