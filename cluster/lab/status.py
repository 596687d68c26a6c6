"""The status of a lab, as data and as text."""

from __future__ import annotations

from typing import Any

from cluster.lab import ray_node
from cluster.lab.network import Network
from cluster.lab.processes import list_pids, runs_ray
from cluster.lab.state import Host, StateFile


def describe(file: StateFile, network: Network) -> dict[str, Any]:
    """The data that `status --json` prints."""
    state = file.require()
    return {
        "name": state.name,
        "status": state.status,
        "address": ray_node.dashboard_url(state.head_address) if state.has_ray else None,
        "ray_address": ray_node.join(state.head_address, ray_node.GCS_PORT) if state.has_ray else None,
        "token_file": state.token_file,
        "folder": str(file.folder),
        "subnet": state.subnet,
        "rate": state.rate,
        "hosts": [
            {
                "name": host.name,
                "address": host.address,
                "status": _word(host, has_ray=not state.has_ray or runs_ray(network.namespace(host.name))),
                "is_cut": host.is_cut,
                "is_head": host.number == 1,
                "cpus": host.num_cpus,
                "gpus": host.num_gpus,
                "processes": len(list_pids(network.namespace(host.name))),
                "logs": str(file.ray_folder(host.name) / "session_latest" / "logs"),
            }
            for host in state.hosts
        ],
    }


def lines(facts: dict[str, Any]) -> list[str]:
    """The status as text: the lab, then its hosts."""
    rate = f", links of {facts['rate']}" if facts["rate"] else ""
    width = max(len(host["address"]) for host in facts["hosts"])
    text = [f"lab {facts['name']!r}: {facts['address'] or 'without Ray'}{rate}"]
    for host in facts["hosts"]:
        gpus = f", {host['gpus']} GPUs" if host["gpus"] else ""
        head = ", the head" if host["is_head"] else ""
        text.append(
            f"{host['name']:<7} {host['address']:<{width}}  {host['status']:<8} {host['cpus']} CPUs{gpus}{head}"
        )
    return text


def _word(host: Host, *, has_ray: bool) -> str:
    """The status of a host: what was last done to it, and what has happened since."""
    if host.is_alive and host.is_cut:
        return "cut"
    if host.is_alive:
        return "no Ray" if host.status == "up" and not has_ray else host.status
    return {"leaving": "left", "up": "died"}.get(host.status, host.status)
