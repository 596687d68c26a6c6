"""All-reduces between real processes."""

import multiprocessing

import pytest

from distrib.doctor.links import measure_links, open_port, reach

pytestmark = pytest.mark.timeout(60)


def _head(results, ports):
    port = open_port("127.0.0.1")
    for _ in range(2):
        ports.put(port)
    results.put((0, measure_links(0, 3, "127.0.0.1", "127.0.0.1", port, "gloo")))


def _other(rank, results, ports):
    results.put((rank, measure_links(rank, 3, "127.0.0.1", "127.0.0.1", ports.get(), "gloo")))


def test_every_pair_is_measured_once():
    spawn = multiprocessing.get_context("spawn")
    results, ports = spawn.Queue(), spawn.Queue()
    processes = [spawn.Process(target=_head, args=(results, ports))]
    processes += [spawn.Process(target=_other, args=(rank, results, ports)) for rank in (1, 2)]
    for process in processes:
        process.start()
    try:
        found = dict(results.get(timeout=50) for _ in processes)
    finally:
        for process in processes:
            process.kill()
            process.join()
    speeds = [speed for speeds in found.values() for speed in speeds]
    assert sorted(speed.hosts for speed in speeds) == [(0, 1), (0, 2), (1, 2)]
    assert all(speed.latency_seconds > 0 and speed.bytes_per_second > 0 for speed in speeds)


def test_only_hosts_that_listen_are_reached():
    port = open_port("127.0.0.1")
    assert reach({"there": ("127.0.0.1", port), "gone": ("127.0.0.1", 1)}) == ["gone"]
