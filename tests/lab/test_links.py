"""The network of a lab: connectivity, bandwidth and cut links."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

PEER = str(Path(__file__).parents[1] / "support" / "lab_peer.py")
MEGABYTE = 2**20

pytestmark = pytest.mark.timeout(150)


@pytest.fixture
def serve():
    """Starts a server on a host of a lab."""
    servers = []

    def start(lab, host):
        server = lab.popen(host, [sys.executable, PEER, "serve", lab.host_address(host)], stdout=subprocess.PIPE)
        servers.append(server)
        assert server.stdout.readline() == "ready\n"

    yield start
    for server in servers:
        server.kill()
        server.communicate()


def transfer_seconds(lab, sender, receiver):
    done = lab.exec(sender, [sys.executable, PEER, "send", lab.host_address(receiver), str(4 * MEGABYTE)])
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


def reaches(lab, host, address):
    """Whether the address answers when spoken to from a host."""
    program = f"import socket; socket.create_connection(({address!r}, 7000), timeout=0.5)"
    return lab.exec(host, [sys.executable, "-c", program]).returncode == 0


def test_hosts_reach_each_other_by_address_and_by_name(links, serve):
    serve(links, "host3")
    assert reaches(links, "host1", links.host_address("host3"))
    assert reaches(links, "host2", "host3")
    assert not reaches(links, "host1", links.host_address("host2"))  # nobody listens there: hosts do not share ports


def test_a_host_calls_itself_as_asked(links, labs):
    program = "import socket; name = socket.gethostname(); print(name, socket.gethostbyname(name))"
    other = labs.up("d", 1, has_ray=False, names="address")
    assert links.exec("host2", [sys.executable, "-c", program]).stdout == "host2 127.0.1.1\n"
    assert other.exec("host1", [sys.executable, "-c", program]).stdout == f"host1 {other.host_address('host1')}\n"


def test_the_rate_is_kept_in_both_directions(labs, serve):
    seconds = {}
    for suffix, rate in (("a", "50mbit"), ("b", "200mbit")):
        lab = labs.up(suffix, 3, rate=rate, has_ray=False)
        serve(lab, "host2")
        seconds[rate] = transfer_seconds(lab, "host1", "host2")
        if rate == "50mbit":
            # Two senders share the receiver's link, whatever each of their own would carry.
            begun = time.monotonic()
            senders = [
                lab.popen(host, [sys.executable, PEER, "send", lab.host_address("host2"), str(4 * MEGABYTE)])
                for host in ("host1", "host3")
            ]
            assert [sender.wait(30) for sender in senders] == [0, 0]
            assert time.monotonic() - begun > 1.6 * seconds[rate]
        lab.down()
    # No link carries more than its rate, but for a burst at the start; a busy machine only makes it slower.
    assert seconds["50mbit"] > 0.8 * 4 * MEGABYTE * 8 / 50e6
    assert seconds["200mbit"] > 0.6 * 4 * MEGABYTE * 8 / 200e6
    assert seconds["200mbit"] < 0.7 * seconds["50mbit"]


def test_a_cut_link_is_silent_and_heals(links, serve):
    serve(links, "host2")
    talk = [sys.executable, "-u", PEER, "talk", links.host_address("host2")]
    with links.popen("host1", talk, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as talker:
        assert talker.stdout.readline() == "on\n"
        links.cut("host2")
        assert talker.stdout.readline() == "off\n"
        assert links.status()["hosts"][1]["status"] == "cut"
        assert not reaches(links, "host3", links.host_address("host2"))
        time.sleep(1)
        assert talker.poll() is None, talker.stderr.read()  # no reset, no error
        links.heal("host2")
        assert talker.stdout.readline() == "on\n"  # the same connection
        assert links.status()["hosts"][1]["status"] == "up"
        talker.kill()


def test_labs_side_by_side_are_independent(labs, links, serve):
    other = labs.up("o", 1, has_ray=False)
    assert other.status()["subnet"] != links.status()["subnet"]
    serve(other, "host1")
    assert reaches(other, "host1", other.host_address("host1"))
    assert not reaches(links, "host1", other.host_address("host1"))
    other.down()
    assert links.exec("host1", ["true"]).returncode == 0


def test_ipv6(labs, serve):
    lab = labs.up("6", 2, has_ray=False, is_ipv6=True)
    assert ":" in lab.host_address("host2")
    serve(lab, "host2")
    assert reaches(lab, "host1", lab.host_address("host2"))
