"""Runs on several hosts under every kind of host failure: samples, weights and run folders are exact."""

import os
import re
import signal
import time

import pytest
import torch
from safetensors.torch import load_file

from tests.support.lab_runs import NUM_STEPS, Project, left_on_hosts, nodes, wait_for_state
from tests.support.recovery_runs import assert_each_sample_once_per_epoch

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def lab(labs):
    """A head that trains nothing, and three hosts with a CPU and a pretend GPU each."""
    return labs.up("w", 4, cpus=1, gpus=1, has_bare_head=True)


@pytest.fixture
def ready_lab(lab):
    """The lab, with host2, host3 and host4 alive and nothing running; afterwards nothing of ours may be left."""
    for host in lab.status()["hosts"]:
        if host["status"] != "up":
            if host["processes"]:
                lab.kill(host["name"])
            lab.join(host["name"])
    yield lab
    deadline = time.monotonic() + 10
    while left := left_on_hosts(lab):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


@pytest.fixture
def project(ready_lab, tmp_path):
    """Makes a project for the lab."""
    made = []

    def make(**options):
        made.append(Project(ready_lab, tmp_path / f"project{len(made)}", **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The weights that three local ranks come to."""
    here = Project(None, tmp_path_factory.mktemp("reference") / "project")
    launch = here.start()
    assert launch.wait() == 0, launch.output
    return here.layout.weights_file


def assert_exact(project, reference, *, is_same_size):
    """Each sample once per epoch, and the weights of an undisturbed run: bit by bit, or to rounding."""
    assert project.run.status == "finished"
    assert_each_sample_once_per_epoch(project.layout, 3, NUM_STEPS)
    if is_same_size:
        assert project.layout.weights_file.read_bytes() == reference.read_bytes()
        return
    ours, theirs = load_file(project.layout.weights_file), load_file(reference)
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-9, atol=1e-9)


def hosts_of(project):
    return {project.place_of(rank)[0] for rank in range(3)}


def test_one_worker_on_each_host_and_a_killed_worker(project, reference, capsys):
    place = project(placement="strict_spread")
    place.pace(0.1)
    launch = place.start()
    launch.wait_until(lambda: 10 in place.steps())
    assert hosts_of(place) == {"host2", "host3", "host4"}
    _, pid = place.place_of(1)
    os.kill(pid, signal.SIGKILL)
    assert launch.wait() == 0, launch.output
    assert len(place.events("restart")) == 1
    assert "rank 1" in place.events("restart")[0]["message"]
    assert_exact(place, reference, is_same_size=True)
    with capsys.disabled():
        print(f"\nworker killed -> next step: {place.gap_after('restart'):.1f} s")


def test_ray_soon_takes_a_killed_host_for_dead_and_the_others_for_alive(ready_lab):
    ready_lab.kill("host3")
    wait_for_state(ready_lab, "host3", "DEAD", seconds=8)  # 12 s and more without the settings of cluster/head.env
    assert [nodes(ready_lab)[ready_lab.host_address(host)]["state"] for host in ("host1", "host2")] == [
        "ALIVE",
        "ALIVE",
    ]
    ready_lab.join("host3")
    wait_for_state(ready_lab, "host3", "ALIVE", seconds=40)


@pytest.mark.long
def test_a_gpu_for_each_worker_and_a_killed_launcher(project, reference):
    place = project(device="cuda")
    place.pace(0.1)
    launch = place.start()
    launch.wait_until(lambda: 10 in place.steps())
    assert hosts_of(place) == {"host2", "host3", "host4"}
    launch.process.kill()
    launch.wait()
    place.pace(0)
    again = place.start()
    assert again.wait() == 0, again.output
    assert "continuing run" in again.output
    assert_exact(place, reference, is_same_size=True)


@pytest.mark.long
@pytest.mark.parametrize("victim", ["host of rank 0", "another host", "link of another host"])
def test_a_lost_host(ready_lab, project, reference, victim, capsys):
    place = project(workers={"min": 2, "max": 3})
    place.pace(0.1)
    launch = place.start()
    launch.wait_until(lambda: 10 in place.steps())
    host, _ = place.place_of(0 if "rank 0" in victim else 1)
    (ready_lab.cut if "link" in victim else ready_lab.kill)(host)
    assert launch.wait() == 0, launch.output
    if "link" in victim:  # ranks on a host that was cut off end when Ray's head tells it that it is dead
        ready_lab.heal(host)
        healed = time.monotonic()
        while ready_lab.status()["hosts"][int(host[-1]) - 1]["status"] != "no Ray":
            assert time.monotonic() - healed < 60
            time.sleep(0.1)
    assert host in place.events("restart")[0]["message"]
    assert "2 workers instead of 3" in place.events("resize")[0]["message"]
    assert_exact(place, reference, is_same_size=False)
    with capsys.disabled():
        print(f"\n{victim} lost -> next step: {place.gap_after('restart'):.1f} s")


@pytest.mark.long
def test_a_drained_host_and_one_that_joins(ready_lab, project, reference, capsys):
    place = project(workers={"min": 2, "max": 3})
    place.pace(0.1)
    launch = place.start()
    launch.wait_until(lambda: 10 in place.steps())
    host, _ = place.place_of(2)
    place.pace(1)
    ready_lab.leave(host, deadline_seconds=60, wait=False)
    launch.wait_until(lambda: place.steps(attempt=1))
    ready_lab.kill(host)
    drained = place.gap_after("resize")
    ready_lab.join(host)
    launch.wait_until(lambda: place.steps(attempt=2))
    place.pace(0)
    assert launch.wait() == 0, launch.output
    assert place.events("restart") == []
    assert place.steps() == list(range(1, NUM_STEPS + 1))  # no step was trained twice
    assert [event["world_size"] for event in place.events("start")] == [3, 2, 3]
    assert_exact(place, reference, is_same_size=False)
    with capsys.disabled():
        print(f"\ndrained: {drained:.1f} s, joined -> grown pause: {place.gap_after('resize', last=True):.1f} s")


def test_the_users_own_error_ends_the_run_at_once(project):
    place = project(failing=5)
    launch = place.start()
    assert launch.wait() == 1, launch.output
    assert place.run.record["ended"] - float((place.layout.folder.parents[1] / "raised").read_text()) < 30
    assert place.events("restart") == []
    error = place.run.error
    assert (error["rank"], error["kind"], error["type"], error["message"]) == (
        1,
        "user",
        "ValueError",
        "no such label: 7",
    )
    assert re.fullmatch(r"host[234] \(\S+\)", error["host"])
    assert "raise ValueError" in error["traceback"]
    assert "no such label: 7" in launch.output


def test_what_the_cluster_cannot_hold_is_refused(project):
    place = project()
    wrong = {
        "workers": (3, ["--workers", "9"], r"9 workers.*of 4 hosts"),
        "gpus": (3, ["--workers", "4", "--device", "cuda"], r"4 workers with .*1 GPU each.*host2 .*1 GPU"),
        "memory": (3, ["--set", "resources.memory_per_worker=9999GiB"], r"GiB of memory"),
        "accelerator": (3, ["--device", "cuda", "--set", "resources.accelerator=H100"], r"an H100 each.*no H100"),
        "address": (3, ["--address", "198.18.0.0:6379"], r"no Ray cluster answers at 198.18.0.0:6379"),
        "storage": (2, ["--runs-dir", "runs"], r"'runs' is relative.*DISTRIB_RUNS_DIR"),
    }
    launches = {name: place.start(*arguments, run_id=name) for name, (_, arguments, _) in wrong.items()}
    for name, (code, _, message) in wrong.items():
        assert launches[name].wait() == code, launches[name].output
        assert re.search(message, launches[name].output, re.DOTALL), launches[name].output
        assert "Traceback" not in launches[name].output
    assert list(place.runs.iterdir()) == []


def test_storage_that_a_host_does_not_see(ready_lab, project):
    place = project(placement="strict_spread")
    ready_lab.hide("host3", place.runs)
    launch = place.start()
    assert launch.wait() == 3, launch.output
    ready_lab.exec("host3", ["umount", str(place.runs)], folder="/")
    assert re.search(r"host3 \(\S+\) does not see the run's folder", launch.output)


@pytest.mark.long
def test_a_local_run_is_resumed_on_the_cluster(project, reference, tmp_path):
    here = Project(None, tmp_path / "here", pace=tmp_path / "pace")
    here.pace(0.1)
    launch = here.start()
    launch.wait_until(lambda: 10 in here.steps())
    launch.process.terminate()
    assert launch.wait() == 130, launch.output
    there = project(pace=tmp_path / "pace")
    (here.runs / "run").rename(there.runs / "run")
    launch = there.start()
    assert launch.wait() == 0, launch.output
    assert_exact(there, reference, is_same_size=True)


@pytest.mark.long
def test_hosts_with_addresses_of_ipv6(labs, reference, tmp_path):
    lab = labs.up("v", 3, cpus=1, is_ipv6=True)
    place = Project(lab, tmp_path / "project", placement="strict_spread")
    launch = place.start()
    assert launch.wait() == 0, launch.output
    assert ":" in lab.host_address("host1")
    assert_exact(place, reference, is_same_size=True)
