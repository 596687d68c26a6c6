"""The address on which the service listens; addresses reachable from other machines require a token."""

from __future__ import annotations

import ipaddress
import socket

from distrib.errors import JobError, LaunchError


def open_socket(host: str, port: int, token: str | None) -> socket.socket:
    """A socket bound to the address, not listening yet.

    Raises:
        JobError: There is no such address, or it is not loopback and there is no token.
        LaunchError: The port is in use.
    """
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise JobError(f"{host} is not an address of this machine: {error}", field="`host`") from None
    is_loopback = all(ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback for *_, address in found)
    if not is_loopback and token is None:
        raise JobError(
            f"{host or 'every address'} can be reached from other machines, so a token is required: "
            "set DISTRIB_SERVE_TOKEN or `token`, or serve on 127.0.0.1",
            field="`host`",
        )
    family, kind, protocol, _, address = found[0]
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise LaunchError(f"cannot serve on {host}, port {port}: {error.strerror}; choose another `port`") from None
    return bound
