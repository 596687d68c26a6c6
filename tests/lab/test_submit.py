"""Jobs submitted to a cluster, followed, inspected and stopped from a machine outside of it."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import suppress

import pytest
from prometheus_client.parser import text_string_to_metric_families

from distrib.errors import JobError, LaunchError
from distrib.launch.ray.submit.job_server import RayJobServer
from distrib.runs.events import read_events
from distrib.runs.storage.folder.checkpoints import FolderCheckpoints
from tests.support.lab_runs import NUM_STEPS, Project, left_on_hosts
from tests.support.recovery_runs import REPOSITORY, assert_each_sample_once_per_epoch

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

CLUSTER_VARIABLES = ("RAY_", "DISTRIB_")


@pytest.fixture(scope="module")
def lab(two_hosts):
    """The lab, whose token this process has."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_TOKEN_PATH", two_hosts.token_file)
        yield two_hosts


@pytest.fixture(scope="module")
def project(lab, tmp_path_factory):
    """A job of three workers, whose model prints a line in each rank."""
    return Project(lab, tmp_path_factory.mktemp("submit") / "project")


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The weights that three local ranks come to."""
    here = Project(None, tmp_path_factory.mktemp("reference") / "project")
    launch = here.start()
    assert launch.wait() == 0, launch.output
    return here.layout.weights_file.read_bytes()


@pytest.fixture(autouse=True)
def nothing_left(lab):
    """After each test nothing of ours runs on any host."""
    yield
    deadline = time.monotonic() + 15
    while left := left_on_hosts(lab):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


class Command:
    """A command of this machine, which is none of the lab's hosts, in the project's folder."""

    def __init__(self, project, *arguments, program=(sys.executable, "-m", "distrib")):
        environment = {key: value for key, value in os.environ.items() if not key.startswith(CLUSTER_VARIABLES)}
        environment |= {"PYTHONPATH": str(REPOSITORY), "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token"}
        environment |= {"RAY_AUTH_TOKEN_PATH": os.environ["RAY_AUTH_TOKEN_PATH"]}
        self._process = subprocess.Popen(
            [*program, *map(str, arguments)],
            cwd=project.code,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def result(self, timeout=200):
        """Exit code, stdout and stderr."""
        try:
            out, err = self._process.communicate(timeout=timeout)
        finally:
            if self._process.poll() is None:
                self._process.kill()
                self._process.communicate()
        return self._process.returncode, out, err


def distrib(project, *arguments, timeout=200):
    return Command(project, *arguments).result(timeout)


def test_submit_and_plain_ray_job_submit_train_to_the_bits_of_local_ranks(lab, project, reference):
    options = ["--runs-dir", project.runs, "--record-samples", "--set", "resources.placement=spread"]
    ours = Command(project, "submit", "job.yaml", "--address", lab.address, "--run-id", "run", *options)
    ray = (os.path.join(os.path.dirname(sys.executable), "ray"), "job", "submit")
    plain = Command(
        project,
        *("--address", lab.address, "--working-dir", ".", "--"),
        *("distrib", "run", "job.yaml", "--run-id", "plain", *options),
        program=ray,
    )
    code, out, err = ours.result()
    assert code == 0, out + err
    assert err == ""
    assert out.startswith(f"run: sent to {lab.address}\n")
    assert "finished  loss" in out
    assert "Traceback" not in out
    plain_code, plain_out, plain_err = plain.result()
    assert plain_code == 0, plain_out + plain_err
    assert_each_sample_once_per_epoch(project.layout, 3, NUM_STEPS)
    assert project.layout.weights_file.read_bytes() == reference
    assert (project.runs / "plain" / "model.safetensors").read_bytes() == reference


def test_stop_saves_a_checkpoint_and_the_same_command_resumes(lab, project, reference):
    shutil.rmtree(project.runs / "run", ignore_errors=True)
    project.pace(0.1)
    options = ["--address", lab.address, "--runs-dir", project.runs]
    training = ["submit", "job.yaml", "--run-id", "run", "--record-samples", *options]
    code, out, err = distrib(project, *training, "--no-wait", "--json")
    assert code == 0, out + err
    assert json.loads(out)["id"] == "run"
    deadline = time.monotonic() + 120
    while 10 not in project.steps():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    project.pace(2)  # so that it is still training when the commands below have started
    code, out, err = distrib(project, "status", "run", *options, "--json")
    assert (code, json.loads(out)["status"], json.loads(out)["job"]["status"]) == (0, "running", "RUNNING"), err
    code, out, err = distrib(project, "stop", "run", *options)
    assert (code, out) == (0, "run: stopped\n"), err
    assert project.run.status == "stopped"
    (newest, *_) = FolderCheckpoints(project.layout.checkpoints).list()
    assert newest.step == max(project.steps())
    project.pace(0)
    code, out, err = distrib(project, *training)
    assert code == 0, out + err
    assert f"continuing run from step {newest.step}" in out
    assert_each_sample_once_per_epoch(project.layout, 3, NUM_STEPS)
    assert project.layout.weights_file.read_bytes() == reference
    code, out, _ = distrib(project, "list", *options, "--json")
    assert code == 0
    statuses = {job["id"]: job["status"] for job in json.loads(out)["jobs"] if job["run"] == "run"}
    assert statuses["run--2" if "run--3" not in statuses else "run--3"] == "SUCCEEDED"


@pytest.mark.long
def test_the_users_error_is_complete_and_logs_have_each_line_of_the_ranks_once(lab, project):
    project.write(failing=5)
    options = ["--address", lab.address, "--runs-dir", project.runs]
    code, out, err = distrib(project, "submit", "job.yaml", "--run-id", "bad", *options)
    project.write()
    assert code == 1, out + err
    assert out.count("ValueError: no such label: 7") >= 1
    assert "raise ValueError" in out
    code, out, err = distrib(project, "logs", "bad", *options)
    assert code == 0, err
    logs = project.runs / "bad" / "logs"
    for rank in range(3):
        written = (logs / f"rank-{rank}.log").read_text().splitlines()
        assert [line.partition("] ")[2] for line in out.splitlines() if line.startswith(f"[rank {rank} on ")] == written
    code, out, _ = distrib(project, "logs", "bad", "--rank", "1", *options)
    assert out.splitlines() == (logs / "rank-1.log").read_text().splitlines()
    assert "ValueError: no such label: 7" in out


class CuttingProxy:
    """Passes connections on to the job server; can break all of them, and refuse new ones."""

    def __init__(self, host, port):
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._open = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                self._open += [client, server]
                for source, sink in ((client, server), (server, client)):
                    threading.Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    @staticmethod
    def _pass_on(source, sink):
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def cut(self):
        """Breaks every connection."""
        for end in self._open:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def close(self):
        """Breaks every connection and takes no more."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()


@pytest.fixture
def proxy(lab):
    host, port = re.fullmatch(r"http://(.*):(\d+)", lab.address).groups()
    made = CuttingProxy(host, int(port))
    yield made
    made.close()


def send(server, script, name):
    """A plain Ray job, which needs no distrib."""
    server._client.submit_job(entrypoint=f"python -u -c '{script}'", submission_id=name)


def test_following_survives_dropped_connections_and_prints_each_line_once(proxy):
    server, printed = RayJobServer(proxy.address), []
    send(server, "import time\nfor i in range(60): print(i); time.sleep(0.1)\nraise SystemExit(3)", "counting")
    cutting = [threading.Timer(seconds, proxy.cut) for seconds in (2, 4, 5)]
    for timer in cutting:
        timer.start()
    ended = server.follow("counting", printed.append)
    for timer in cutting:
        timer.join()
    numbers = [line for line in "".join(printed).splitlines() if line.isdigit()]
    assert numbers == [str(number) for number in range(60)]
    assert (ended.status, ended.result) == ("FAILED", 3)


def test_a_server_that_goes_away_while_its_logs_are_followed(proxy, lab, monkeypatch):
    monkeypatch.setattr("distrib.launch.ray.submit.job_server._RETRY_SECONDS", 3.0)
    server = RayJobServer(proxy.address)
    send(server, "import time; time.sleep(150)", "sleeping")
    deadline = time.monotonic() + 60
    while server.status("sleeping").status != "RUNNING":
        assert time.monotonic() < deadline
        time.sleep(0.2)
    timer = threading.Timer(2, proxy.close)
    timer.start()
    with pytest.raises(LaunchError, match=r"lost contact with the job server .* may still run"):
        server.follow("sleeping", lambda text: None)
    timer.join()
    directly = RayJobServer(lab.address)
    assert directly.status("sleeping").status == "RUNNING"
    directly.stop("sleeping")
    assert directly.wait("sleeping", 60).result == 130


def test_what_cannot_be_sent_is_refused_at_once(lab, project, tmp_path):
    with pytest.raises(JobError, match=r"has no job of run nobody; the newest ones:"):
        RayJobServer(lab.address).find("nobody")
    with pytest.raises(JobError, match="is not the address of a job server"):
        RayJobServer("10.0.0.1:6379")
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    listener.close()
    with pytest.raises(LaunchError, match="no job server answers"):
        RayJobServer(f"http://127.0.0.1:{port}")
    code, _, err = distrib(project, "submit", "job.yaml", "--address", lab.address)
    assert (code, "'runs' is relative" in err) == (2, True)
    big = project.code / "big.bin"
    with big.open("wb") as file:
        file.truncate(600 * 2**20)
    code, _, err = distrib(project, "submit", "job.yaml", "--address", lab.address, "--runs-dir", tmp_path)
    big.unlink()
    assert (code, "600 MiB  big.bin" in err) == (2, True), err


SAVED = "ray_distrib_checkpoint_step"


def ray_metrics(lab):
    """The samples that Ray exports on the lab's hosts: by metric, the values and their labels."""
    discovery = next(lab.folder.glob("host1/ray/**/prom_metrics_service_discovery.json"))
    found = {}
    for target in (target for entry in json.loads(discovery.read_text()) for target in entry["targets"]):
        try:
            with urllib.request.urlopen(f"http://{target}/metrics", timeout=5) as answer:
                text = answer.read().decode()
        except OSError:
            continue
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found.setdefault(sample.name, []).append((sample.value, sample.labels))
    return found


def test_ray_exports_the_metrics_of_a_training(lab, project):
    shutil.rmtree(project.runs / "watched", ignore_errors=True)
    project.pace(0.4)
    options = ["--address", lab.address, "--runs-dir", project.runs]
    code, out, err = distrib(project, "submit", "job.yaml", "--run-id", "watched", "--no-wait", *options)
    assert code == 0, out + err
    deadline = time.monotonic() + 90
    found = {}
    while not any(labels["run"] == "watched" for _, labels in found.get(SAVED, ())):
        assert time.monotonic() < deadline, sorted(name for name in found if "distrib" in name)
        time.sleep(1)
        found = ray_metrics(lab)
    project.pace(0)
    events = read_events(project.runs / "watched" / "metrics.jsonl")
    for metric, field in {"step": "step", "loss": "loss", "samples_per_second": "samples_per_second"}.items():
        values = [value for value, labels in found[f"ray_distrib_{metric}"] if labels["run"] == "watched"]
        assert values
        reported = [event[field] for event in events if event["event"] == "train"]
        assert all(any(value == pytest.approx(known) for known in reported) for value in values)
    assert {labels["job"] for _, labels in found["ray_distrib_workers"]} == {"paced"}
    assert {value for value, _ in found["ray_distrib_workers"]} == {3}
    assert RayJobServer(lab.address).wait("watched", 120).status == "SUCCEEDED"
