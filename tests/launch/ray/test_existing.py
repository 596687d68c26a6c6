"""Connecting to a cluster that runs already: what is refused, what ranks are given, and waiting for room."""

import socket

import pytest

from distrib.errors import JobError, LaunchError
from distrib.job.plan import Request
from distrib.job.reader import Job
from distrib.launch.launcher import Placement
from distrib.launch.ray.cluster import existing
from distrib.launch.ray.cluster.existing import ExistingRay
from distrib.launch.ray.cluster.placement import ClusterHost
from distrib.launch.ray.launcher import RayLauncher

pytestmark = pytest.mark.timeout(120)

JOB = """\
name: small
model: torch.nn:Identity
data: {train: torch.utils.data:TensorDataset, batch_size: 8}
loss: torch.nn:CrossEntropyLoss
optimizer: torch.optim:SGD
train: {epochs: 1}
"""
REQUEST = Request("ray", 2, 2, "cpu", "gloo", 2, 300.0, 30.0)


@pytest.fixture
def job(tmp_path, monkeypatch):
    (tmp_path / "job.yaml").write_text(JOB)
    monkeypatch.chdir(tmp_path)
    return Job.load(tmp_path / "job.yaml", [f"storage={tmp_path}"])


def test_the_address_of_a_job_server_is_refused_with_the_way_out(job):
    with pytest.raises(JobError, match=r"`address`: http://x:8265 is not the address of a cluster's head.*submit"):
        ExistingRay(job, "http://x:8265")


def test_relative_storage_is_refused(job):
    with pytest.raises(JobError, match=r"'runs' is relative.*`runs_dir` or DISTRIB_RUNS_DIR"):
        ExistingRay(job.override(["storage=runs"]), "10.0.0.1:6379")


def test_a_job_outside_of_the_working_directory_is_refused(job, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(JobError, match="is outside of the working directory"):
        ExistingRay(job, "10.0.0.1:6379")


def test_an_address_where_nothing_answers(job):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with RayLauncher(job, f"127.0.0.1:{port}") as launcher, pytest.raises(LaunchError, match="no Ray cluster answers"):
        launcher.prepare(lambda: None)


def test_ranks_get_the_variables_of_libraries_but_not_those_that_the_submitted_job_has_given(job, monkeypatch):
    monkeypatch.setenv("NCCL_DEBUG", "INFO")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("HOSTNAME", "not forwarded")
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", '{"runtime_env": {"env_vars": {"OMP_NUM_THREADS": "4"}}}')
    variables = ExistingRay(job, "auto").worker_environment
    assert variables["NCCL_DEBUG"] == "INFO"
    assert "OMP_NUM_THREADS" not in variables
    assert "HOSTNAME" not in variables


class Monitor:
    """Each time it is asked, the next list of hosts."""

    def __init__(self, *hosts):
        self._hosts = list(hosts)

    def check(self):
        pass

    def close(self):
        pass

    @property
    def hosts(self):
        return self._hosts.pop(0) if len(self._hosts) > 1 else self._hosts[0]


def host(name, cpus=2.0, free=None):
    return ClusterHost(name, name, "10.0.0.1", 1, {"CPU": cpus}, {"CPU": cpus if free is None else free})


def find_room(job, monkeypatch, *hosts, patience=None, is_stopping=lambda: False):
    monkeypatch.setattr(existing, "has_autoscaler", lambda: False)
    monkeypatch.setattr(existing, "_WAIT_SECONDS", 0.01)
    cluster = ExistingRay(job, "auto")
    cluster._monitor = Monitor(*hosts)
    notices = []
    found = cluster.find_room(REQUEST, {}, patience_seconds=patience, notice=notices.append, is_stopping=is_stopping)
    return found, notices


def test_a_cluster_without_room_is_refused_and_the_message_says_what_there_is(job, monkeypatch):
    with pytest.raises(LaunchError, match="cannot hold 2 workers with 2 CPU each: of 1 host, a has 2 CPU"):
        find_room(job, monkeypatch, [host("a")])


def test_busy_hosts_are_waited_for(job, monkeypatch):
    busy, free = [host("a"), host("b", free=0.0)], [host("a"), host("b")]
    found, notices = find_room(job, monkeypatch, busy, busy, free)
    assert found == Placement(2, ("a", "b"))
    assert len(notices) == 1
    assert notices[0].startswith("waiting for other users to free 2 workers with 2 CPU each")


def test_lost_hosts_are_waited_for_after_a_failure(job, monkeypatch):
    found, _ = find_room(job, monkeypatch, [host("a")], [host("a")], [host("a"), host("b")], patience=10.0)
    assert found.world_size == 2


def test_a_stop_ends_the_wait(job, monkeypatch):
    answers = iter([False, True])
    found, _ = find_room(job, monkeypatch, [host("a", free=0.0), host("b")], is_stopping=lambda: next(answers))
    assert found is None
