"""The hosts of a lab: commands on them, their end, and complete removal without side effects."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cluster.lab import Lab, LabError
from cluster.lab.network import NAMESPACES, choose_subnet
from cluster.lab.state import StateFile
from tests.support.interrupted import interrupted_at_import

pytestmark = pytest.mark.timeout(60)


def traces(name, folder):
    """All that there is of a lab on this machine."""
    namespaces = [file.name for file in NAMESPACES.glob(f"*.{name}.*")] if NAMESPACES.exists() else []
    interfaces = [link for link in os.listdir("/sys/class/net") if name in link]
    processes = [
        command
        for file in Path("/proc").glob("[0-9]*/cmdline")
        if (command := _read(file)) and f"{folder}/{name}/" in command
    ]
    mounts = [line for line in Path("/proc/mounts").read_text().splitlines() if f"{folder}/{name}" in line]
    return [*namespaces, *interfaces, *processes, *mounts, *folder.glob(name)]


def _read(file):
    try:
        return file.read_text().replace("\0", " ")
    except OSError:
        return ""


def wait_for(condition, seconds=40):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_exec_is_like_running_it_here(links, tmp_path, monkeypatch):
    monkeypatch.setenv("OF_THE_CALLER", "yes")
    done = links.exec(
        "host2", ["sh", "-c", "hostname; pwd; echo $OF_THE_CALLER; echo oops >&2; exit 7"], folder=tmp_path
    )
    assert done.stdout.splitlines() == ["host2", str(tmp_path), "yes"]
    assert (done.stderr, done.returncode) == ("oops\n", 7)
    assert links.exec("host2", ["no-such-program"]).returncode == 127


def test_signals_reach_the_command_once(links):
    program = (
        "import signal, time; signal.signal(signal.SIGINT, lambda *_: print('SIGINT', flush=True)); "
        "print('ready', flush=True); [time.sleep(0.1) for _ in range(100)]"
    )
    with links.popen("host1", [sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "SIGINT\n"
        process.terminate()
        assert process.wait(40) == -signal.SIGTERM
        assert process.stdout.read() == ""


def test_a_command_does_not_outlive_the_one_who_asked_for_it(links):
    with links.popen("host1", ["sleep", "300.1"]) as process:
        wait_for(lambda: "sleep 300.1" in links.processes("host1").values())
        process.kill()
    wait_for(lambda: "sleep 300.1" not in links.processes("host1").values())


def test_kill_ends_all_of_one_host_and_join_brings_it_back(labs):
    lab = labs.up("k", 2, has_ray=False)
    daemons = "setsid sleep 300 & trap '' TERM INT; setsid sh -c 'sleep 300; sleep 300' &"
    lab.popen("host2", ["sh", "-c", daemons]).wait(40)
    others = lab.popen("host1", ["sleep", "300"])
    wait_for(lambda: len(lab.processes("host2")) >= 4)
    doomed = list(lab.processes("host2"))
    lab.kill("host2")
    assert lab.processes("host2") == {}
    assert not any(_read(Path(f"/proc/{pid}/cmdline")) for pid in doomed)
    assert others.poll() is None
    assert [host["status"] for host in lab.status()["hosts"]] == ["up", "killed"]
    with pytest.raises(LabError, match="host2 is down"):
        lab.exec("host2", ["true"])
    assert lab.join("host2") == "host2"
    assert lab.exec("host2", ["true"]).returncode == 0
    assert lab.join() == "host3"
    lab.down()
    assert others.wait(40) == -signal.SIGKILL


def test_a_folder_can_be_hidden_from_one_host(labs, tmp_path):
    (tmp_path / "file").write_text("here")
    lab = labs.up("h", 2, has_ray=False, hidden=[("host2", str(tmp_path))])
    look = ["cat", str(tmp_path / "file")]
    assert lab.exec("host1", look, folder="/").stdout == "here"
    assert lab.exec("host2", look, folder="/").returncode == 1
    lab.hide("host1", tmp_path)
    assert lab.exec("host1", look, folder="/").returncode == 1
    assert (tmp_path / "file").read_text() == "here"
    lab.down()


def test_other_processes_and_namespaces_are_left_alone(labs):
    lab = labs.up("p", 1, has_ray=False)
    foreign = f"distrib-labx.{lab.name}.host1"
    subprocess.run(["ip", "netns", "add", foreign], check=True)
    try:
        neighbour = subprocess.Popen(["ip", "netns", "exec", foreign, "sleep", "300"])
        here = subprocess.Popen(["sleep", "300"], cwd=lab.folder)
        lab.kill("host1")
        lab.down()
        assert (neighbour.poll(), here.poll()) == (None, None)
        assert (NAMESPACES / foreign).exists()
        for process in (neighbour, here):
            process.kill()
            process.wait()
    finally:
        subprocess.run(["ip", "netns", "del", foreign], check=True)


EARLY = [pytest.param(seconds, marks=pytest.mark.long) for seconds in (0.3, 0.6)]


@pytest.mark.parametrize("seconds", [*EARLY, 0.45, 2.5])
def test_nothing_is_left_where_up_was_killed(labs, command, seconds):
    name = labs.name("c")
    arguments = ["up", "--hosts", "3", "--name", name, "--folder", labs.folder]
    up = subprocess.Popen([sys.executable, "-m", "cluster.lab", *map(str, arguments)], stdout=subprocess.DEVNULL)
    time.sleep(seconds)
    up.kill()
    up.wait()
    begun = time.monotonic()
    assert command("down", "--name", name, "--folder", labs.folder).returncode == 0
    assert time.monotonic() - begun < 30
    assert traces(name, labs.folder) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_up_cleans_up_where_it_is_interrupted(labs, number):
    name = labs.name("i")
    arguments = ["up", "--name", name, "--folder", labs.folder]
    up = subprocess.Popen(
        [sys.executable, "-m", "cluster.lab", *map(str, arguments)], stderr=subprocess.PIPE, text=True
    )
    wait_for(lambda: traces(name, labs.folder))
    up.send_signal(number)
    assert up.wait(40) == 130
    assert up.stderr.read() == "lab: interrupted\n"
    assert traces(name, labs.folder) == []


def test_up_cleans_up_where_it_is_interrupted_at_its_first_trace(labs, monkeypatch):
    create = StateFile.create

    def create_and_interrupt(file, state):
        create(file, state)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(StateFile, "create", create_and_interrupt)
    with pytest.raises(KeyboardInterrupt):
        labs.up("j", 1, has_ray=False)
    assert traces(labs.name("j"), labs.folder) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_while_the_verbs_are_imported(tmp_path, number):
    done = interrupted_at_import("cluster.lab", tmp_path, number)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "lab: interrupted\n")


def test_down_ends_an_up_that_is_at_work(labs, command):
    name = labs.name("w")
    arguments = ["up", "--name", name, "--folder", labs.folder]
    up = subprocess.Popen([sys.executable, "-m", "cluster.lab", *map(str, arguments)], stdout=subprocess.DEVNULL)
    wait_for(lambda: len(traces(name, labs.folder)) > 2)
    assert command("down", "--name", name, "--folder", labs.folder).returncode == 0
    assert up.wait(40) != 0
    assert traces(name, labs.folder) == []


def test_down_again_and_without_a_lab_is_no_error(labs, command):
    lab = labs.up("z", 1, has_ray=False)
    assert lab.down()
    assert not lab.down()
    done = command("down", "--name", lab.name, "--folder", labs.folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert "nothing to do" in done.stdout


def test_down_removes_no_folder_that_is_not_a_lab(labs, tmp_path, command):
    precious = tmp_path / "mine" / "file"
    precious.parent.mkdir()
    precious.write_text("precious")
    assert command("down", "--name", "mine", "--folder", tmp_path).returncode == 0
    assert precious.read_text() == "precious"


def test_a_range_of_addresses_that_is_in_use_is_not_taken(links):
    assert str(choose_subnet(links.name, is_ipv6=False)) != links.status()["subnet"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["kill", "host9"], "there is no host 'host9'"),
        (["exec", "host9", "true"], "it has host1, host2, host3"),
        (["join", "host1"], "host1 is already running"),
        (["up"], "remove it first"),
        (["leave", "host2"], "started without Ray"),
    ],
)
def test_errors_are_a_line_with_the_way_out(links, labs, command, arguments, message):
    verb, *rest = arguments
    done = command(verb, "--name", links.name, "--folder", labs.folder, *rest)
    assert done.returncode == 3
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--name", "Upper"], "cannot name a lab"),
        (["--rate", "fast"], "like 200mbit"),
        (["--hosts", "0"], "from 1 to 99"),
        (["--hide", "nowhere"], "PATH:HOST"),
        (["--hide", "/no/such:host1"], "no such folder"),
        (["--folder", "/tmp/" + "long" * 20], "too long"),
    ],
)
def test_a_wrong_start_is_refused_before_it_begins(labs, command, arguments, message):
    done = command("up", "--name", labs.name("e"), "--folder", labs.folder, *arguments)
    assert done.returncode == 3
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_missing_root_or_iproute2_is_reported(monkeypatch, tmp_path):
    with monkeypatch.context() as change:
        change.setattr(os, "geteuid", lambda: 1000)
        with pytest.raises(LabError, match="needs root"):
            Lab.up(1, has_ray=False, folder=tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LabError, match="apt-get install iproute2"):
        Lab.up(1, has_ray=False, folder=tmp_path)


def test_status_for_programs(links, labs, command):
    done = command("status", "--json", "--name", links.name, "--folder", labs.folder)
    facts = json.loads(done.stdout)
    assert facts["address"] is None
    assert [host["name"] for host in facts["hosts"]] == ["host1", "host2", "host3"]
