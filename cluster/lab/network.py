"""The network of a lab: a switch in its own namespace and a pair of interfaces from it to every host."""

from __future__ import annotations

import hashlib
import ipaddress
import itertools
import json
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

from cluster.lab.errors import LabError
from cluster.lab.state import Address, Subnet

NAMESPACES = Path("/run/netns")
# Reserved by RFC 2544 for benchmarks; used neither on the internet nor, usually, in private networks.
_RANGE = ipaddress.IPv4Network("198.18.0.0/15")
# Unique local addresses; RFC 4193 requires 40 random bits.
_RANGE_V6 = ipaddress.IPv6Network("fd00::/8")
_PREFIX = "distrib-lab"
_SWITCH = "switch"
_HOST_INTERFACE = "eth0"
_UNITS = {"k": 10**3, "m": 10**6, "g": 10**9}


class Network:
    """The network of the lab `name`; everything it creates is found by that name.

    The switch is not in the machine's own namespace, where firewall rules such as Docker's would apply between hosts.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._root_interface = f"lab-{name}"

    def namespace(self, host: str) -> Path:
        """The file of a host's network namespace."""
        return NAMESPACES / self._full(host)

    @property
    def namespaces(self) -> list[Path]:
        """All network namespaces of this lab."""
        return sorted(NAMESPACES.glob(f"{_PREFIX}.{self._name}.*"))

    @property
    def exists(self) -> bool:
        """Whether anything of this lab's network exists."""
        return bool(self.namespaces) or Path("/sys/class/net", self._root_interface).exists()

    def add_switch(self, subnet: Subnet) -> None:
        """Creates the switch and the machine's own link to it, which has the subnet's last address.

        Raises:
            LabError: The machine does not allow it.
        """
        switch = self._full(_SWITCH)
        try:
            _ip([f"netns add {switch}"])
        except LabError as error:
            raise LabError(f"this machine does not allow network namespaces: {error}") from None
        _ip(
            [
                "link set lo up",
                "link add bridge type bridge forward_delay 0",
                "link set bridge up",
            ],
            switch,
        )
        _ip(
            [
                f"link add {self._root_interface} type veth peer name machine netns {switch}",
                _add_address(machine_address(subnet), subnet, self._root_interface),
                f"link set {self._root_interface} up",
            ]
        )
        _ip(["link set machine master bridge", "link set machine up"], switch)

    def add_host(self, host: str, address: Address, subnet: Subnet, rate: str | None) -> None:
        """Creates a host's namespace and its link to the switch, limited to `rate` in both directions.

        Remains of an earlier host of that name are replaced.
        """
        switch, namespace = self._full(_SWITCH), self._full(host)
        if self.namespace(host).exists():
            _call("ip", "-n", switch, "link", "del", host, is_required=False)
            _call("ip", "netns", "del", namespace)
        _ip([f"netns add {namespace}"])
        _ip([f"link add {host} type veth peer name {_HOST_INTERFACE} netns {namespace}"], switch)
        _ip(
            [
                "link set lo up",
                _add_address(address, subnet, _HOST_INTERFACE),
                f"link set {_HOST_INTERFACE} up",
            ],
            namespace,
        )
        _ip([f"link set {host} master bridge", f"link set {host} up"], switch)
        if rate is not None:
            for place, interface in ((namespace, _HOST_INTERFACE), (switch, host)):
                burst = max(64 * 1024, parse_rate(rate) // 8 // 125)  # 8 ms, as in a small switch's buffer
                limit = f"rate {rate} burst {burst} latency 50ms".split()
                _call("tc", "-n", place, "qdisc", "add", "dev", interface, "root", "tbf", *limit)

    def cut(self, host: str) -> None:
        """Makes the switch silently drop all packets from and to a host."""
        _call("bridge", "-n", self._full(_SWITCH), "link", "set", "dev", host, "state", "disabled")

    def heal(self, host: str) -> None:
        """Undoes `cut`."""
        _call("bridge", "-n", self._full(_SWITCH), "link", "set", "dev", host, "state", "forwarding")

    def remove(self) -> None:
        """Removes the whole network; no process may be left in it."""
        _call("ip", "link", "del", self._root_interface, is_required=False)
        for namespace in self.namespaces:
            _call("ip", "netns", "del", namespace.name, is_required=False)
            namespace.unlink(missing_ok=True)

    def _full(self, host: str) -> str:
        return f"{_PREFIX}.{self._name}.{host}"


def choose_subnet(name: str, *, is_ipv6: bool) -> Subnet:
    """An address range without a route on this machine; derived from the name, if that range is free.

    Raises:
        LabError: All ranges are in use.
    """
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:5], "big")
    if is_ipv6:
        return ipaddress.IPv6Network((int(_RANGE_V6.network_address) + (number << 80), 64))
    taken = list(_routes())
    candidates = list(_RANGE.subnets(new_prefix=24))
    start = number % len(candidates)
    for candidate in itertools.chain(candidates[start:], candidates[:start]):
        if not any(candidate.overlaps(route) for route in taken):
            return candidate
    raise LabError(f"all of {_RANGE} is in use on this machine; remove other labs")


def machine_address(subnet: Subnet) -> Address:
    """The machine's own address in the lab."""
    return subnet.network_address + 254


def parse_rate(rate: str) -> int:
    """Parses a rate in the notation of `tc`, such as `200mbit`, in bits per second.

    Raises:
        LabError: It is not a rate.
    """
    match = re.fullmatch(r"([1-9]\d*)([kmg])bit", rate, re.ASCII)
    if match is None:
        raise LabError(f"--rate {rate!r} is not a rate; write it like 200mbit or 1gbit")
    return int(match[1]) * _UNITS[match[2]]


def _routes() -> Iterable[ipaddress.IPv4Network]:
    """The destinations of the machine's routes, except the default route."""
    for route in json.loads(_call("ip", "-json", "-4", "route", "show", "table", "all") or "[]"):
        if route["dst"] != "default":
            yield ipaddress.IPv4Network(route["dst"], strict=False)


def _add_address(address: Address, subnet: Subnet, interface: str) -> str:
    # Without duplicate address detection, so that the address is usable immediately.
    no_detection = " nodad" if address.version == 6 else ""
    return f"addr add {address}/{subnet.prefixlen} dev {interface}{no_detection}"


def _ip(lines: list[str], namespace: str | None = None) -> None:
    place = [] if namespace is None else ["-n", namespace]
    _call("ip", *place, "-batch", "-", text="\n".join(lines) + "\n")


def _call(*command: str, text: str = "", is_required: bool = True) -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0 and is_required:
        raise LabError(f"{' '.join(command)}: {done.stderr.strip() or 'failed'}")
    return done.stdout
