"""The links of a lab: a switch in a namespace of its own, and a pair of interfaces from it to every host."""

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
# The range that RFC 2544 sets aside for measuring networks: neither the internet nor, as a rule, anybody's own network.
_RANGE = ipaddress.IPv4Network("198.18.0.0/15")
# Addresses of one's own, where RFC 4193 wants 40 random bits.
_RANGE_V6 = ipaddress.IPv6Network("fd00::/8")
_PREFIX = "distrib-lab"
_SWITCH = "switch"
_HOST_INTERFACE = "eth0"
_UNITS = {"k": 10**3, "m": 10**6, "g": 10**9}


class Network:
    """The network of the lab `name`; everything that it makes is found again by that name.

    The switch is not in the machine's own namespace: firewall rules of the machine, such as Docker's, would otherwise
    apply between the hosts.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._root_interface = f"lab-{name}"

    def namespace(self, host: str) -> Path:
        """The file by which a host's network namespace is entered."""
        return NAMESPACES / self._full(host)

    @property
    def namespaces(self) -> list[Path]:
        """All that there are of this lab, whoever made them."""
        return sorted(NAMESPACES.glob(f"{_PREFIX}.{self._name}.*"))

    @property
    def exists(self) -> bool:
        """Whether there is anything of this lab."""
        return bool(self.namespaces) or Path("/sys/class/net", self._root_interface).exists()

    def add_switch(self, subnet: Subnet) -> None:
        """Makes the switch, and the machine's own link to it, which has the subnet's last address.

        Raises:
            LabError: The machine forbids it.
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
        """Makes a host's namespace and its link to the switch, limited to `rate` in both directions.

        What an earlier host of that name has left is replaced.
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
        """Lets the switch drop everything to and from a host; neither side is told."""
        _call("bridge", "-n", self._full(_SWITCH), "link", "set", "dev", host, "state", "disabled")

    def heal(self, host: str) -> None:
        """Undoes `cut`."""
        _call("bridge", "-n", self._full(_SWITCH), "link", "set", "dev", host, "state", "forwarding")

    def remove(self) -> None:
        """Removes everything of this lab; no process may be left in it."""
        _call("ip", "link", "del", self._root_interface, is_required=False)
        for namespace in self.namespaces:
            _call("ip", "netns", "del", namespace.name, is_required=False)
            namespace.unlink(missing_ok=True)

    def _full(self, host: str) -> str:
        return f"{_PREFIX}.{self._name}.{host}"


def choose_subnet(name: str, *, is_ipv6: bool) -> Subnet:
    """A range of addresses that no route of this machine leads to; the same for the same name, where it is free.

    Raises:
        LabError: All are taken.
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
    raise LabError(f"all of {_RANGE} is in use on this machine; take other labs down")


def machine_address(subnet: Subnet) -> Address:
    """The address that the machine itself has among the hosts."""
    return subnet.network_address + 254


def parse_rate(rate: str) -> int:
    """A rate as `tc` writes it, such as `200mbit`, in bits per second.

    Raises:
        LabError: It is not one.
    """
    match = re.fullmatch(r"([1-9]\d*)([kmg])bit", rate, re.ASCII)
    if match is None:
        raise LabError(f"--rate {rate!r} is not a rate; write 200mbit, 1gbit or the like")
    return int(match[1]) * _UNITS[match[2]]


def _routes() -> Iterable[ipaddress.IPv4Network]:
    """Where the machine's own routes lead, but for the one to everywhere."""
    for route in json.loads(_call("ip", "-json", "-4", "route", "show", "table", "all") or "[]"):
        if route["dst"] != "default":
            yield ipaddress.IPv4Network(route["dst"], strict=False)


def _add_address(address: Address, subnet: Subnet, interface: str) -> str:
    # Without looking for duplicates first, so that the address can be used at once.
    without_search = " nodad" if address.version == 6 else ""
    return f"addr add {address}/{subnet.prefixlen} dev {interface}{without_search}"


def _ip(lines: list[str], namespace: str | None = None) -> None:
    place = [] if namespace is None else ["-n", namespace]
    _call("ip", *place, "-batch", "-", text="\n".join(lines) + "\n")


def _call(*command: str, text: str = "", is_required: bool = True) -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0 and is_required:
        raise LabError(f"{' '.join(command)}: {done.stderr.strip() or 'failed'}")
    return done.stdout
