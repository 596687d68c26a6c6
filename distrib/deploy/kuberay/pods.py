"""Pods of a Ray cluster on Kubernetes: the head's, and those of the workers."""

from __future__ import annotations

import math

from distrib.deploy.deployment import Deployment
from distrib.deploy.hosts import RAY_MEMORY_BYTES, Hosts
from distrib.deploy.kuberay.kubernetes import (
    Affinity,
    AffinityTerm,
    ClaimSource,
    Container,
    ContainerPort,
    ContainerResources,
    EmptyDir,
    EnvFrom,
    EnvVar,
    LabelSelector,
    Metadata,
    PodAntiAffinity,
    PodSecurity,
    PodSpec,
    PodTemplate,
    SecretSource,
    Toleration,
    TopologySpread,
    Volume,
    VolumeMount,
)
from distrib.deploy.kuberay.settings import KubeRaySettings
from distrib.launch.ray.submit.job_environment import HEAD_SETTINGS

JOB_LABEL = "distrib/job"
_GPU = "nvidia.com/gpu"
_MIB = 2**20
_STOP_MARGIN_SECONDS = 30
_PORTS = [
    ContainerPort(container_port=6379, name="gcs-server"),
    ContainerPort(container_port=8265, name="dashboard"),
    ContainerPort(container_port=8080, name="metrics"),
]


def head_pod(deployment: Deployment, settings: KubeRaySettings, name: str) -> PodTemplate:
    """The head's pod, which runs no workers and therefore has no GPU."""
    amounts = {"cpu": str(settings.head_cpus), "memory": settings.head_memory}
    container = Container(
        name="ray-head",
        image=settings.image,
        env=[EnvVar(name=key, value=value) for key, value in HEAD_SETTINGS.items()],
        env_from=_env_from(settings),
        ports=_PORTS,
        resources=ContainerResources(requests=amounts, limits=amounts),
        volume_mounts=_mounts(deployment, settings),
    )
    return PodTemplate(
        metadata=Metadata(labels={JOB_LABEL: name}),
        spec=PodSpec(
            service_account_name=settings.service_account,
            termination_grace_period_seconds=_grace(deployment),
            security_context=PodSecurity(fs_group=settings.group_id),
            containers=[container],
            volumes=_volumes(deployment, settings),
        ),
    )


def worker_pod(deployment: Deployment, settings: KubeRaySettings, name: str, hosts: Hosts) -> PodTemplate:
    """The pod of a host with workers."""
    labels = {JOB_LABEL: name, "distrib/role": "worker"}
    amounts = {"cpu": str(hosts.num_cpus)}
    if hosts.memory_bytes is not None:
        amounts["memory"] = f"{math.ceil((hosts.memory_bytes + RAY_MEMORY_BYTES) / _MIB)}Mi"
    if hosts.num_gpus:
        amounts[_GPU] = str(hosts.num_gpus)
    container = Container(
        name="ray-worker",
        image=settings.image,
        env_from=_env_from(settings),
        resources=ContainerResources(requests=amounts, limits=amounts),
        volume_mounts=_mounts(deployment, settings),
    )
    placement = deployment.request.placement
    return PodTemplate(
        metadata=Metadata(labels=labels),
        spec=PodSpec(
            service_account_name=settings.service_account,
            automount_service_account_token=None if settings.service_account else False,
            termination_grace_period_seconds=_grace(deployment),
            node_selector={**deployment.request.labels, **settings.node_selector} or None,
            tolerations=[Toleration(key=_GPU, effect="NoSchedule")] if hosts.num_gpus else None,
            affinity=_one_per_node(labels) if placement == "strict_spread" else None,
            topology_spread_constraints=[_spread(labels)] if placement == "spread" else None,
            security_context=PodSecurity(fs_group=settings.group_id),
            containers=[container],
            volumes=_volumes(deployment, settings),
        ),
    )


def _grace(deployment: Deployment) -> int:
    """Seconds that a pod has to end: enough for the last checkpoint."""
    return math.ceil(deployment.request.grace_seconds) + _STOP_MARGIN_SECONDS


def _env_from(settings: KubeRaySettings) -> list[EnvFrom] | None:
    names = [name for name in (settings.storage_secret, *settings.env_secret) if name]
    return [EnvFrom(secret_ref=SecretSource(name=name)) for name in names] or None


def _mounts(deployment: Deployment, settings: KubeRaySettings) -> list[VolumeMount]:
    mounts = [VolumeMount(name="shared-memory", mount_path="/dev/shm")]
    if settings.volume_claim:
        mounts.append(VolumeMount(name="runs", mount_path=deployment.storage))
    return mounts


def _volumes(deployment: Deployment, settings: KubeRaySettings) -> list[Volume]:
    """Shared memory, which NCCL and data loaders need more of than the 64 MiB of a container, and the runs."""
    memory = EmptyDir(medium="Memory", size_limit=settings.shared_memory)
    volumes = [Volume(name="shared-memory", empty_dir=memory)]
    if settings.volume_claim:
        claim = ClaimSource(claim_name=settings.volume_claim)
        volumes.append(Volume(name="runs", persistent_volume_claim=claim))
    return volumes


def _one_per_node(labels: dict[str, str]) -> Affinity:
    term = AffinityTerm(label_selector=LabelSelector(match_labels=labels))
    return Affinity(pod_anti_affinity=PodAntiAffinity(required_during_scheduling_ignored_during_execution=[term]))


def _spread(labels: dict[str, str]) -> TopologySpread:
    return TopologySpread(when_unsatisfiable="ScheduleAnyway", label_selector=LabelSelector(match_labels=labels))
