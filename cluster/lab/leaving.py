"""Removes hosts: drained by Ray, killed, or all of them with the lab."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress

from cluster.lab import ray_node
from cluster.lab.entering import DEADLINE_FILE, last_line
from cluster.lab.errors import LabError
from cluster.lab.network import Network
from cluster.lab.processes import Process, kill_all, runs_ray
from cluster.lab.state import Host, StateFile

_POLL_SECONDS = 0.05


def drain(file: StateFile, host: Host, environment: Mapping[str, str], deadline_seconds: float) -> float:
    """Notifies Ray of the removal of a host and sets the host's deadline, which is returned (monotonic clock).

    Raises:
        LabError: The host is down, or Ray refuses.
    """
    state = file.require()
    node_id = ray_node.find_node_id(state, host.address)
    if node_id is None or host.first is None:
        url = ray_node.dashboard_url(state.head_address)
        raise LabError(f"Ray has no live node on {host.name}; see {url}")
    deadline = time.monotonic() + deadline_seconds
    ray_address = ray_node.join(state.head_address, ray_node.GCS_PORT)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "ray.scripts.scripts", "drain-node", f"--address={ray_address}"),
            *(f"--node-id={node_id}", f"--deadline-remaining-seconds={round(deadline_seconds)}"),
            *("--reason=DRAIN_NODE_REASON_PREEMPTION", "--reason-message=the host leaves the lab"),
        ],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise LabError(f"Ray refuses to drain {host.name}: {last_line(done.stderr)}")
    (file.host_folder(host.name) / DEADLINE_FILE).write_text(repr(deadline))
    with suppress(ProcessLookupError):
        os.kill(host.first.pid, signal.SIGUSR1)
    return deadline


def await_departure(network: Network, host: Host, deadline: float) -> None:
    """Waits until the host, or its idle Ray node, has ended, at most until the deadline."""
    namespace = network.namespace(host.name)
    while host.is_alive and time.monotonic() < deadline:
        if not runs_ray(namespace):
            return
        time.sleep(_POLL_SECONDS)


def end_host(network: Network, host: Host) -> None:
    """Kills all processes of a host."""
    if host.first is not None:
        host.first.kill()
    kill_all(network.namespace(host.name))


def take_down(file: StateFile, network: Network, this_process: Process) -> bool:
    """Kills every process of a lab, including those that build it, and removes the lab.

    Returns:
        Whether there was anything to remove.

    Raises:
        LabError: A process does not end.
    """
    if not file.exists and not network.exists:
        return False
    with suppress(LabError), file.change() as state:  # only remains, or another process removes it, too
        state.status = "going"
    remains = file.read()
    for builder in remains.builders if remains else []:
        if builder != this_process:
            builder.kill()
    for host in remains.hosts if remains else []:
        if host.first is not None:
            host.first.kill()
    while network.exists:  # repeated, since a command of a killed builder may still take effect
        for namespace in network.namespaces:
            if not kill_all(namespace):
                raise LabError(f"a process in {namespace.name} does not end; run down again, or see ip netns pids")
        network.remove()
    file.remove()
    return True
