"""Each check finds what it is there for, and nothing on a healthy host."""

import pytest

from distrib.doctor.checks.clock import Clock
from distrib.doctor.checks.collective import Collective, slow_hosts
from distrib.doctor.checks.environment import Environment
from distrib.doctor.checks.gpus import Gpus
from distrib.doctor.checks.names import Names
from distrib.doctor.checks.network import Ports
from distrib.doctor.checks.processors import Processors
from distrib.doctor.checks.room import Room
from distrib.doctor.checks.storage import SharedStorage
from distrib.doctor.checks.versions import Versions
from distrib.doctor.host_facts import GpuFacts
from distrib.doctor.links import LinkSpeed, pair_rounds
from distrib.job.plan import make_request
from distrib.job.reader import Job
from distrib.launch.fleet import NoAnswer

VERSIONS = {"torch": "2.13.0", "ray": "2.60.0", "distrib": "0.1.0", "numpy": "2.1.0"}
GPU = GpuFacts("H100", 80 * 2**30, 0)


@pytest.fixture
def job(tmp_path):
    (tmp_path / "job.yaml").write_text(
        "name: j\nmodel: m:M\ndata: {train: m:D, batch_size: 4}\nloss: torch.nn:MSELoss\n"
        f"optimizer: torch.optim:SGD\ntrain: {{steps: 1}}\nstorage: {tmp_path}/runs\n"
    )
    return Job.load(tmp_path / "job.yaml")


@pytest.mark.parametrize("check", [Versions(), Gpus(), Processors(), Environment(), Room(), Names(), Clock()])
def test_healthy_hosts_are_ok(examine, check):
    assert [finding.status for finding in examine(check, {}, {})] == ["ok"]


@pytest.mark.parametrize(
    ("check", "changes", "status", "message"),
    [
        (Gpus(), {"gpus": None}, "warning", "cannot be queried"),
        (Gpus(), {"gpus": (GPU,)}, "warning", "torch sees none"),
        (Gpus(), {"gpus": (GpuFacts("H100", 100, 0, (), 3),), "num_visible_gpus": 1}, "failed", "3 uncorrected"),
        (Gpus(), {"gpus": (GpuFacts("H100", 100, 50, (77,)),), "num_visible_gpus": 1}, "warning", "process 77"),
        (Gpus(), {"gpus": (GPU,), "num_visible_gpus": 1, "cuda": "12.8"}, "failed", "no NCCL"),
        (Environment(), {"environment": {"WORLD_SIZE": "8"}}, "warning", "WORLD_SIZE"),
        (Environment(), {"environment": {"SLURM_STEP_NUM_TASKS": "8"}}, "warning", "8 copies"),
        (Environment(), {"environment": {"GLOO_SOCKET_IFNAME": "ib0"}}, "failed", "does not exist"),
        (Room(), {"free_bytes": {"/runs": 2**20}}, "failed", "only 1 MiB"),
        (Room(), {"free_bytes": {"/runs": 2**30}}, "warning", "only 1,024 MiB"),
        (Room(), {"num_open_files": 256}, "warning", "256 files"),
        (Room(), {"shared_memory_bytes": 2**26, "num_visible_gpus": 1}, "warning", "/dev/shm has 64 MiB"),
        (Names(), {"name_addresses": ()}, "warning", "does not resolve"),
        (Names(), {"name_seconds": 5.0}, "warning", "takes more than 1 s"),
    ],
)
def test_a_problem_of_one_host_is_found_there(examine, check, changes, status, message):
    findings = examine(check, {}, changes)
    assert [(finding.status, finding.hosts) for finding in findings] == [(status, ("host2",))]
    assert message in findings[0].message
    assert findings[0].fix


def test_a_driver_without_torch_fails_a_job_for_gpus(examine, job):
    request = make_request(job.spec, "local", "cuda")
    assert examine(Gpus(), {"gpus": (GPU,)}, request=request)[0].status == "failed"


def test_versions_that_differ_name_the_odd_host(examine):
    findings = examine(Versions(), {}, {"versions": {**VERSIONS, "torch": "2.11.0"}}, {})
    assert [(finding.status, finding.hosts) for finding in findings] == [("failed", ("host2",))]
    assert "2.11.0 on host2" in findings[0].message


def test_more_threads_than_cpus(examine, job):
    request = make_request(job.override(["resources.workers=16"]).spec, "local", "cpu")
    assert "16 workers" in examine(Processors(), {}, request=request)[0].message
    assert examine(Processors(), {"cpu_quota": 0.5})[0].status == "warning"


def test_a_clock_that_is_ahead(examine):
    findings = examine(Clock(), {}, {}, answers={("time", "host2"): 4e9})
    assert [finding.hosts for finding in findings] == [("host2",)]
    assert "ahead" in findings[0].message


def test_a_pair_that_cannot_connect(examine):
    answers = {("open_port", f"host{i}"): 1000 + i for i in (1, 2)}
    answers |= {("reach", "host1"): [], ("reach", "host2"): ["host1"]}
    findings = examine(Ports(), {}, {}, answers=answers)
    assert [(finding.status, finding.hosts) for finding in findings] == [("failed", ("host2", "host1"))]


def test_a_cluster_address_that_no_interface_carries(examine):
    answers = {("open_port", "host1"): 1, ("reach", "host1"): []}
    assert "no interface" in examine(Ports(), {"interfaces": {}}, answers=answers)[0].message


def test_storage_that_one_host_does_not_share(examine, job):
    assert [finding.status for finding in examine(SharedStorage(), {}, {}, job=job)] == ["ok"]
    findings = examine(SharedStorage(), {}, {}, job=job, answers={("read_probes", "host2"): {}})
    assert [(finding.status, finding.hosts) for finding in findings] == [("failed", ("host2", "host1"))]


def test_storage_that_one_host_cannot_write(examine, job):
    answers = {("write_probe", "host2"): NoAnswer("PermissionError: no")}
    findings = examine(SharedStorage(), {}, {}, job=job, answers=answers)
    assert [(finding.status, finding.hosts) for finding in findings] == [("failed", ("host2",))]


def test_probes_are_removed(examine, job, tmp_path):
    examine(SharedStorage(), {}, {}, job=job)
    assert list((tmp_path / "runs").iterdir()) == []


def test_an_all_reduce_that_fails_names_its_host(examine):
    answers = {("measure_links", "host1"): [], ("measure_links", "host2"): NoAnswer("DistBackendError: refused")}
    findings = examine(
        Collective(), {"interfaces": {"lo": ("127.0.0.1",)}}, {}, answers=answers | {("open_port", "host1"): 1}
    )
    assert [(finding.status, finding.hosts) for finding in findings] == [("failed", ("host2",))]


def _speeds(rates, latency=1e-4, late=()):
    return [
        LinkSpeed((a, b), latency * (100 if late and {a, b} & set(late) else 1), min(rates[a], rates[b]))
        for a in range(len(rates))
        for b in range(a + 1, len(rates))
    ]


def test_the_slow_host_is_named_and_no_other():
    assert list(slow_hosts(4, _speeds([1e9, 1e9, 1e8, 1e9]))) == [2]
    assert list(slow_hosts(3, _speeds([1e8, 1e9, 1e9]))) == [0]
    assert list(slow_hosts(4, _speeds([1e9] * 4, late=(1,)))) == [1]
    assert slow_hosts(4, _speeds([1e9, 0.8e9, 1.2e9, 1e9])) == {}
    assert slow_hosts(2, _speeds([1e8, 1e9])) == {}


@pytest.mark.parametrize("num_hosts", [1, 2, 3, 5, 8])
def test_rounds_have_every_pair_once_and_no_host_twice(num_hosts):
    rounds = pair_rounds(num_hosts)
    pairs = [pair for pairs in rounds for pair in pairs]
    assert sorted(pairs) == [(a, b) for a in range(num_hosts) for b in range(a + 1, num_hosts)]
    assert all(len({host for pair in pairs for host in pair}) == 2 * len(pairs) for pairs in rounds)
