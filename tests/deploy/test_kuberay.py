"""RayJobs: valid by Kubernetes' own schema, equal in every number to the plan, and refused where they cannot be."""

import json
import re

import kubernetes_validate
import pytest
import yaml

from distrib.deploy.kuberay.api import RayJob
from distrib.deploy.kuberay.renderer import object_name
from distrib.errors import JobError
from tests.deploy.conftest import ELASTIC, FOLDER, GPU, STORE
from tests.support.rendered import KUBERNETES_GPU, entrypoint_command, request_of_command, with_numbers

STORE_SECRET = "storage_secret=store"
CLAIM = "volume_claim=runs"
H100_NODES = "node_selector=cloud.google.com/gke-accelerator=nvidia-h100-80gb"
CASES = {
    "digits": ((STORE,), (STORE_SECRET,)),
    "elastic": ((*ELASTIC, FOLDER), (CLAIM, "workers_per_host=2")),
    "gpu": ((*GPU, STORE), (STORE_SECRET, "workers_per_host=4", H100_NODES)),
    "one host": ((*GPU, STORE, "resources.placement=strict_pack"), (STORE_SECRET, H100_NODES)),
    "a host each": ((STORE, "resources.placement=strict_spread", "resources.labels={zone: a}"), (STORE_SECRET,)),
}


@pytest.fixture(params=CASES)
def rendered(request, render):
    overrides, settings = CASES[request.param]
    deployment, text = render("kuberay", *overrides, settings=settings)
    return deployment, yaml.safe_load(text)


def pods(job):
    cluster = job["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [group["template"] for group in groups]


def test_pod_templates_are_valid(rendered):
    for template in pods(rendered[1]):
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "pod", **template["metadata"]},
            "spec": template["spec"],
        }
        kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)


def test_numbers_are_the_plans_and_the_request_can_be_read_back(rendered):
    deployment, data = rendered
    job = RayJob.model_validate(data)
    (group,) = job.spec.ray_cluster_spec.worker_group_specs
    (container,) = group.template.spec.containers
    assert container.resources.requests == container.resources.limits
    limits = container.resources.limits
    start = group.ray_start_params
    gpus = int(limits.get(KUBERNETES_GPU, 0))
    assert (start["num-cpus"], start["num-gpus"]) == (limits["cpu"], str(gpus))
    _, command = entrypoint_command(job.spec.entrypoint)
    read = request_of_command(command)
    assert read == deployment.request
    per_host = int(limits["cpu"]) // read.cpus_per_worker
    assert gpus == (per_host if read.device == "cuda" else 0)
    memory = int(start["memory"]) // per_host if "memory" in start else None
    if memory is not None:
        assert limits["memory"] == f"{(memory * per_host + 2 * 2**30) // 2**20}Mi"
    workers = (group.min_replicas * per_host, group.max_replicas * per_host)
    numbers = with_numbers(read, workers=workers, cpus=read.cpus_per_worker, gpus=gpus, memory_bytes=memory)
    assert numbers == deployment.request
    assert group.template.spec.termination_grace_period_seconds > deployment.request.grace_seconds


def test_head_runs_no_workers_and_shared_memory_is_a_volume(rendered):
    head, worker = pods(rendered[1])
    start = rendered[1]["spec"]["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]
    assert (start["num-cpus"], start["num-gpus"]) == ("0", "0")
    assert KUBERNETES_GPU not in head["spec"]["containers"][0]["resources"]["limits"]
    for template in (head, worker):
        (memory,) = [volume for volume in template["spec"]["volumes"] if volume["name"] == "shared-memory"]
        assert memory["emptyDir"]["medium"] == "Memory"
        mounts = {m["name"]: m["mountPath"] for m in template["spec"]["containers"][0]["volumeMounts"]}
        assert mounts["shared-memory"] == "/dev/shm"
        assert template["spec"]["securityContext"]["runAsNonRoot"] is True


def test_only_elastic_jobs_are_scaled(render):
    for name, (overrides, settings) in CASES.items():
        _, text = render("kuberay", *overrides, settings=settings)
        cluster = yaml.safe_load(text)["spec"]["rayClusterSpec"]
        assert ("enableInTreeAutoscaling" in cluster) == (name == "elastic")


def test_placement_and_labels_reach_the_pods(render):
    overrides, settings = CASES["a host each"]
    _, text = render("kuberay", *overrides, settings=settings)
    group = yaml.safe_load(text)["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]
    spec = group["template"]["spec"]
    assert group["labels"] == spec["nodeSelector"] == {"zone": "a"}
    (term,) = spec["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert term["topologyKey"] == "kubernetes.io/hostname"
    assert term["labelSelector"]["matchLabels"].items() <= group["template"]["metadata"]["labels"].items()


def test_accelerator_is_announced_as_the_autoscaler_and_ray_start_read_it(render):
    overrides, settings = CASES["gpu"]
    _, text = render("kuberay", *overrides, settings=settings)
    quoted = yaml.safe_load(text)["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["rayStartParams"]["resources"]
    assert quoted[0] == quoted[-1] == '"'
    assert json.loads(quoted[1:-1].replace("\\", "")) == {"accelerator_type:H100": 1}
    assert json.loads(json.loads(quoted)) == {"accelerator_type:H100": 1}


def test_secrets_go_by_name(render):
    settings = (STORE_SECRET, "env_secret=wandb", "token_secret=token", "service_account=train")
    _, text = render("kuberay", STORE, settings=settings, variables={"MODE": "fast"})
    data = yaml.safe_load(text)
    assert data["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token", "secretName": "token"}
    for template in pods(data):
        sources = template["spec"]["containers"][0]["envFrom"]
        assert [source["secretRef"]["name"] for source in sources] == ["store", "wandb"]
        assert template["spec"]["serviceAccountName"] == "train"
    environment = yaml.safe_load(data["spec"]["runtimeEnvYAML"])
    assert environment["env_vars"]["MODE"] == "fast"
    assert environment["env_vars"]["RAY_JOB_STOP_SIGNAL"] == "SIGINT"


@pytest.mark.parametrize(
    ("overrides", "settings", "message"),
    [
        ((STORE,), (), r"--with: pods need credentials for s3://bucket/runs: --with storage_secret=NAME"),
        ((FOLDER,), (), r"storage: /shared/runs is a folder, and pods share none; --with volume_claim=NAME"),
        ((*GPU, STORE), (STORE_SECRET,), r"resources.accelerator: Kubernetes has no common name"),
        ((STORE, "resources.labels={zone: '!a'}"), (STORE_SECRET,), r"resources.labels.zone: .*'!a'"),
        ((*ELASTIC, STORE, "resources.placement=strict_pack"), (STORE_SECRET,), r"resources.placement: strict_pack"),
        ((STORE, "resources.workers=3"), (STORE_SECRET, "workers_per_host=2"), r"resources.workers: 3 workers do not"),
        ((STORE,), (STORE_SECRET, "imge=x"), r"--with: kuberay has no setting imge; did you mean image\?"),
        ((STORE,), (STORE_SECRET, "retries=many"), r"--with: retries=many: "),
        ((STORE,), ("storage_secret=Not A Name",), r"--with: storage_secret=Not A Name: "),
        ((STORE,), (STORE_SECRET, "node_selector=zone"), r"node_selector takes KEY=VALUE"),
        (("storage=runs",), (), r"storage: 'runs' is relative"),
    ],
)
def test_what_cannot_be_expressed_names_the_field_and_the_way_out(render, overrides, settings, message):
    with pytest.raises(JobError, match=message) as caught:
        render("kuberay", *overrides, settings=settings)
    assert "\n" not in str(caught.value)


def test_a_secret_among_the_variables_is_refused_and_not_repeated(render):
    with pytest.raises(JobError, match=r"--env: WANDB_API_KEY looks like a secret") as caught:
        render("kuberay", STORE, settings=(STORE_SECRET,), variables={"WANDB_API_KEY": "hunter22"})
    assert "hunter22" not in str(caught.value)


def test_names_of_objects_are_those_that_kubernetes_allows():
    ids = ["digits-20261125-110906-6145", "My_Job.v2", "2fast", "a" * 100, "a" * 99 + "b"]
    names = [object_name(id_) for id_ in ids]
    assert names[:3] == ["digits-20261125-110906-6145", "my-job-v2", "run-2fast"]
    assert len(set(names)) == len(names)
    for name in names:
        assert re.fullmatch(r"[a-z][a-z0-9-]{0,45}[a-z0-9]", name)
