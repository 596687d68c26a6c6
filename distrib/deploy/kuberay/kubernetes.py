"""The fields of Kubernetes' pods that we render, as typed models; names and meaning as in its API reference (v1)."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class Resource(BaseModel):
    """Base of all models: written in camel case, and unknown fields are errors."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)


class Metadata(Resource):
    """Name and labels of an object."""

    name: str | None = None
    namespace: str | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class SecretSource(Resource):
    """A Secret by name."""

    name: str


class EnvFrom(Resource):
    """Every key of a Secret as an environment variable."""

    secret_ref: SecretSource


class EnvVar(Resource):
    """One environment variable."""

    name: str
    value: str


class ContainerResources(Resource):
    """What a container is scheduled with and limited to."""

    requests: dict[str, str]
    limits: dict[str, str]


class VolumeMount(Resource):
    """Where a container sees a volume."""

    name: str
    mount_path: str


class Capabilities(Resource):
    """Linux capabilities of a container."""

    drop: list[str]


class ContainerSecurity(Resource):
    """What a container may do."""

    allow_privilege_escalation: bool = False
    capabilities: Capabilities = Capabilities(drop=["ALL"])


class ContainerPort(Resource):
    """A port that a container listens at."""

    container_port: int
    name: str


class Container(Resource):
    """A container of a pod."""

    name: str
    image: str
    env: list[EnvVar] | None = None
    env_from: list[EnvFrom] | None = None
    ports: list[ContainerPort] | None = None
    resources: ContainerResources
    security_context: ContainerSecurity = ContainerSecurity()
    volume_mounts: list[VolumeMount]


class EmptyDir(Resource):
    """A volume that lives as long as its pod."""

    medium: str
    size_limit: str


class ClaimSource(Resource):
    """A PersistentVolumeClaim by name."""

    claim_name: str


class Volume(Resource):
    """A volume of a pod: one of its sources is set."""

    name: str
    empty_dir: EmptyDir | None = None
    persistent_volume_claim: ClaimSource | None = None


class SeccompProfile(Resource):
    """Which system calls are allowed."""

    type: str = "RuntimeDefault"


class PodSecurity(Resource):
    """What all containers of a pod may do."""

    run_as_non_root: bool = True
    fs_group: int
    seccomp_profile: SeccompProfile = SeccompProfile()


class Toleration(Resource):
    """A taint of nodes that a pod accepts."""

    key: str
    operator: str = "Exists"
    effect: str


class LabelSelector(Resource):
    """Pods by their labels."""

    match_labels: dict[str, str]


class TopologySpread(Resource):
    """How pods are spread over nodes."""

    max_skew: int = 1
    topology_key: str = "kubernetes.io/hostname"
    when_unsatisfiable: str
    label_selector: LabelSelector


class AffinityTerm(Resource):
    """Pods that are meant, and what counts as the same place."""

    label_selector: LabelSelector
    topology_key: str = "kubernetes.io/hostname"


class PodAntiAffinity(Resource):
    """Pods that must not share a place."""

    required_during_scheduling_ignored_during_execution: list[AffinityTerm]


class Affinity(Resource):
    """Where a pod may be scheduled, as seen from other pods."""

    pod_anti_affinity: PodAntiAffinity


class PodSpec(Resource):
    """A pod."""

    service_account_name: str | None = None
    automount_service_account_token: bool | None = None
    termination_grace_period_seconds: int
    node_selector: dict[str, str] | None = None
    tolerations: list[Toleration] | None = None
    affinity: Affinity | None = None
    topology_spread_constraints: list[TopologySpread] | None = None
    security_context: PodSecurity
    containers: list[Container]
    volumes: list[Volume]


class PodTemplate(Resource):
    """What pods are made from."""

    metadata: Metadata
    spec: PodSpec
