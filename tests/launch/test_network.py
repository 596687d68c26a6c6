"""The interface that carries an address, and what is set for gloo and NCCL."""

import os
import socket

import psutil
import pytest

from distrib.launch.network import answers, interface_of, listen_on, use_interface_of

VARIABLES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME", "NCCL_SOCKET_FAMILY")


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in VARIABLES:
        monkeypatch.setenv(name, "to be restored")
        monkeypatch.delenv(name)


def loopback():
    (name,) = [
        name
        for name, addresses in psutil.net_if_addrs().items()
        if any(address.address == "127.0.0.1" for address in addresses)
    ]
    return name


def test_loopback_is_found_by_its_address_and_an_address_of_nobody_is_not():
    assert interface_of("127.0.0.1") == loopback()
    assert interface_of("192.0.2.1") is None  # TEST-NET-1, RFC 5737: no host has it


def test_every_address_of_this_host_is_found_on_its_own_interface():
    for name, addresses in psutil.net_if_addrs().items():
        for address in addresses:
            if address.family in (socket.AF_INET, socket.AF_INET6):
                assert interface_of(address.address) == name


def test_gloo_and_nccl_get_the_interface_unless_the_user_has_chosen_one(monkeypatch):
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "ib0")
    use_interface_of("127.0.0.1")
    assert os.environ["GLOO_SOCKET_IFNAME"] == loopback()
    assert os.environ["NCCL_SOCKET_IFNAME"] == "ib0"
    assert "NCCL_SOCKET_FAMILY" not in os.environ


def test_an_address_that_no_interface_carries_sets_nothing():
    use_interface_of("192.0.2.1")
    assert not any(name in os.environ for name in VARIABLES)


@pytest.mark.skipif(not os.path.exists("/proc/net/if_inet6"), reason="this machine has no IPv6")
def test_ipv6_is_listened_on_and_told_to_nccl():
    if interface_of("::1") is None:
        pytest.skip("loopback has no IPv6 address here")
    use_interface_of("::1")
    assert os.environ["GLOO_SOCKET_IFNAME"] == loopback()
    assert os.environ["NCCL_SOCKET_FAMILY"] == "AF_INET6"
    with listen_on("::1") as listener:
        assert answers("::1", listener.getsockname()[1], 5.0)


def test_what_listens_answers_and_what_does_not_is_refused():
    with listen_on("127.0.0.1") as listener:
        port = listener.getsockname()[1]
        assert answers("127.0.0.1", port, 5.0)
    assert not answers("127.0.0.1", port, 5.0)
