"""Which network interface the ranks of a host use: the one that carries the host's address in the cluster."""

from __future__ import annotations

import ipaddress
import os
import socket

import psutil

_INTERFACE_VARIABLES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
_FAMILY_VARIABLE = "NCCL_SOCKET_FAMILY"


def use_interface_of(address: str) -> None:
    """Has gloo and NCCL, in this process, use the interface that carries `address`.

    By default gloo takes the interface that the host's name resolves to, on many systems loopback, and NCCL the first
    that it likes. What the user has set in the environment stays.

    Args:
        address: An IPv4 or IPv6 address of this host; where no interface carries it, nothing is set.
    """
    interface = interface_of(address)
    if interface is None:
        return
    for name in _INTERFACE_VARIABLES:
        os.environ.setdefault(name, interface)
    if ipaddress.ip_address(_without_zone(address)).version == 6:
        os.environ.setdefault(_FAMILY_VARIABLE, "AF_INET6")


def interface_of(address: str) -> str | None:
    """The name of the interface that carries `address`, or None."""
    wanted = ipaddress.ip_address(_without_zone(address))
    for name, addresses in psutil.net_if_addrs().items():
        for candidate in addresses:
            if candidate.family not in (socket.AF_INET, socket.AF_INET6):
                continue
            if ipaddress.ip_address(_without_zone(candidate.address)) == wanted:
                return name
    return None


def _without_zone(address: str) -> str:
    """`fe80::1%eth0` as `fe80::1`."""
    return address.partition("%")[0]


def listen_on(address: str) -> socket.socket:
    """A listening TCP socket on a free port of `address`, for as many connections at once as a big job has ranks."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return socket.create_server((address, 0), family=family, backlog=1024)


def answers(address: str, port: int, timeout_seconds: float) -> bool:
    """Whether something accepts TCP connections at `address`."""
    try:
        with socket.create_connection((address, port), timeout=timeout_seconds):
            return True
    except OSError:
        return False
