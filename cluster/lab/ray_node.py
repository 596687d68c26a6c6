"""Starts the Ray node of a host: command, environment and readiness."""

from __future__ import annotations

import json
import os
import secrets
import sys
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from cluster.lab.errors import LabError
from cluster.lab.state import Host, LabState, Subnet

GCS_PORT = 6379
DASHBOARD_PORT = 8265
_OBJECT_STORE_BYTES = 128 * 2**20
# Makes distrib's workers train on the CPU, since the GPUs are simulated.
_PRETEND_VARIABLE = "DISTRIB_PRETEND_GPUS"
_HEAD_SETTINGS = Path(__file__).parents[1] / "head.env"
# Ray appends session_DATE_TIME_PID/sockets/plasma_store; socket paths have at most 107 bytes.
MAX_TEMP_DIR_LENGTH = 107 - len("/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store")


def start_command(host: Host, state: LabState, temp_dir: Path) -> list[str]:
    """The command that starts Ray on a host and exits once it runs."""
    if host.number == 1:
        everywhere = "::" if ":" in host.address else "0.0.0.0"
        role = ["--head", f"--port={GCS_PORT}", "--include-dashboard=true"]
        role += [f"--dashboard-host={everywhere}", f"--dashboard-port={DASHBOARD_PORT}"]
    else:
        role = [f"--address={join(state.head_address, GCS_PORT)}"]
    return [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", *role),
        *(
            f"--node-ip-address={host.address}",
            f"--temp-dir={temp_dir}",
            f"--object-store-memory={_OBJECT_STORE_BYTES}",
        ),
        *(f"--num-cpus={host.num_cpus}", f"--num-gpus={host.num_gpus}", "--disable-usage-stats"),
        *("--log-style=record", "--log-color=false"),
    ]


def node_environment(host: Host, state: LabState) -> dict[str, str]:
    """The environment of Ray on a host: the caller's, with this Python and its commands first in PATH."""
    environment = without_proxy(os.environ, state.network)
    environment.pop("RAY_ADDRESS", None)
    commands = os.path.dirname(sys.executable)
    environment["PATH"] = os.pathsep.join([commands, environment.get("PATH", os.defpath)])
    if host.number == 1:
        environment |= head_settings()
    if host.num_gpus > 0:
        environment[_PRETEND_VARIABLE] = "1"
    return with_token(environment, state) | {"RAY_USAGE_STATS_ENABLED": "0"}


def command_environment(environment: Mapping[str, str], state: LabState) -> dict[str, str]:
    """An environment in which programs find the lab's Ray cluster, if it has one."""
    changed = without_proxy(environment, state.network)
    changed.pop("RAY_ADDRESS", None)
    if not state.has_ray:
        return changed
    return with_token(changed, state) | {"RAY_ADDRESS": join(state.head_address, GCS_PORT)}


def with_token(environment: Mapping[str, str], state: LabState) -> dict[str, str]:
    """An environment in which Ray, and its clients, use the lab's token; only the file's path is in it."""
    changed = {name: value for name, value in environment.items() if not name.startswith("RAY_AUTH_")}
    if state.token_file is None:
        return changed | {"RAY_AUTH_MODE": "disabled"}
    return changed | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": state.token_file}


def make_token(file: Path) -> str | None:
    """Writes the token of a new lab, the caller's own if the environment has one, and returns where.

    None if the environment's RAY_AUTH_MODE is `disabled`.
    """
    if os.environ.get("RAY_AUTH_MODE", "").lower() == "disabled":
        return None
    given, named = os.environ.get("RAY_AUTH_TOKEN"), os.environ.get("RAY_AUTH_TOKEN_PATH")
    if given is None and named:
        try:
            given = Path(named).read_text()
        except OSError as error:
            raise LabError(f"RAY_AUTH_TOKEN_PATH: {named} cannot be read: {error.strerror}") from None
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write((given or secrets.token_hex(32)).strip())
    return str(file)


def without_proxy(environment: Mapping[str, str], subnet: Subnet) -> dict[str, str]:
    """An environment that bypasses proxies for the lab's addresses."""
    changed = dict(environment)
    for name in ("no_proxy", "NO_PROXY"):
        if any(changed.get(proxy) for proxy in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")):
            changed[name] = ",".join(filter(None, (changed.get(name), str(subnet))))
    return changed


def head_settings() -> dict[str, str]:
    """The variables of `cluster/head.env`."""
    lines = _HEAD_SETTINGS.read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def join(address: str, port: int) -> str:
    """`address:port`, with brackets for IPv6."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def dashboard_url(head_address: str) -> str:
    """The URL of Ray Jobs and the dashboard."""
    return f"http://{join(head_address, DASHBOARD_PORT)}"


def query(state: LabState, path: str, timeout_seconds: float) -> bytes:
    """The response of the head's dashboard at `path`; OSError if there is none."""
    headers = {}
    if state.token_file is not None:
        headers["Authorization"] = f"Bearer {Path(state.token_file).read_text()}"
    request = urllib.request.Request(dashboard_url(state.head_address) + path, headers=headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=timeout_seconds) as response:
        return bytes(response.read())


def dashboard_answers(state: LabState) -> bool:
    """Whether Ray Jobs can be reached."""
    try:
        query(state, "/api/version", 2)
    except OSError:
        return False
    return True


def find_node_id(state: LabState, address: str) -> str | None:
    """The id of the live Ray node with this address, from the head's dashboard."""
    try:
        nodes = json.loads(query(state, "/api/v0/nodes?detail=0&limit=10000", 10))["data"]["result"]["result"]
    except OSError as error:
        raise LabError(f"the head does not respond at {dashboard_url(state.head_address)}: {error}") from None
    for node in nodes:
        if node["node_ip"] == address and node["state"] == "ALIVE":
            return str(node["node_id"])
    return None
