"""What KubeRay needs to know beyond the job."""

from __future__ import annotations

from pydantic import Field

from distrib import __version__
from distrib.deploy.settings import TargetSettings

DNS_NAME = r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$"
_QUANTITY = r"^[1-9][0-9]*(\.[0-9]+)?(Mi|Gi|Ti|M|G|T)$"


class KubeRaySettings(TargetSettings):
    """Settings of `--render kuberay`."""

    image: str = f"distrib:{__version__}"
    """The image of all pods, with distrib and the job's code; see cluster/Dockerfile."""
    workdir: str = Field(default="/job", pattern="^/")
    """The folder of the image that holds the job's code, where `distrib run` is executed."""
    namespace: str | None = Field(default=None, pattern=DNS_NAME)
    """The namespace of the RayJob; by default that of `kubectl`."""
    storage_secret: str | None = Field(default=None, pattern=DNS_NAME)
    """The Secret whose keys are the environment variables that open the object store (AWS_ACCESS_KEY_ID, …)."""
    env_secret: tuple[str, ...] = ()
    """Further Secrets whose keys become environment variables; repeatable."""
    token_secret: str | None = Field(default=None, pattern=DNS_NAME)
    """The Secret whose key `auth_token` is the cluster's token; by default KubeRay generates a token per cluster."""
    service_account: str | None = Field(default=None, pattern=DNS_NAME)
    """The service account of all pods; it may open the object store instead of a Secret."""
    volume_claim: str | None = Field(default=None, pattern=DNS_NAME)
    """The PersistentVolumeClaim (ReadWriteMany) mounted where the job keeps its runs, if that is a path."""
    node_selector: dict[str, str] = Field(default={})
    """Labels of the nodes for workers, KEY=VALUE; repeatable. Needed with `resources.accelerator`."""
    shared_memory: str = Field(default="4Gi", pattern=_QUANTITY)
    """Size of /dev/shm, which NCCL, data loaders and Ray's object store share."""
    head_cpus: int = Field(default=2, ge=1)
    """CPUs of the head's pod."""
    head_memory: str = Field(default="8Gi", pattern=_QUANTITY)
    """Memory of the head's pod."""
    retries: int = Field(default=2, ge=0)
    """How often KubeRay starts a new cluster if this one fails; the run resumes from its newest checkpoint."""
    group_id: int = Field(default=1000, ge=1)
    """The group that owns mounted volumes: that of the image's user."""
