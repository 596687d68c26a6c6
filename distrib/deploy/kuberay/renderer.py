"""`--render kuberay`: a RayJob for the KubeRay operator, which starts a cluster for the job and removes it after."""

from __future__ import annotations

import hashlib
import re
import shlex
from importlib.metadata import version
from typing import Any

import yaml

from distrib.deploy.deployment import Deployment
from distrib.deploy.hosts import Hosts, check_labels, hosts_of
from distrib.deploy.kuberay.api import (
    AuthOptions,
    AutoscalerOptions,
    HeadGroup,
    RayCluster,
    RayJob,
    RayJobSpec,
    WorkerGroup,
)
from distrib.deploy.kuberay.kubernetes import Metadata
from distrib.deploy.kuberay.pods import head_pod, worker_pod
from distrib.deploy.kuberay.settings import KubeRaySettings
from distrib.deploy.renderer import Rendered, Renderer
from distrib.deploy.yaml_text import to_yaml
from distrib.errors import JobError
from distrib.launch.ray.submit.job_environment import submitted_variables

_MAX_NAME_LENGTH = 47
"""KubeRay refuses longer names of RayJobs, since it derives those of services from them."""
_KEPT_SECONDS = 300
_IDLE_SECONDS = 120


def make_ray_job(deployment: Deployment, settings: KubeRaySettings, hosts: Hosts) -> RayJob:
    """The RayJob that trains `deployment` on `hosts`."""
    name = object_name(deployment.run_id)
    cluster = RayCluster(
        ray_version=version("ray"),
        auth_options=AuthOptions(secret_name=settings.token_secret),
        enable_in_tree_autoscaling=True if hosts.is_elastic else None,
        autoscaler_options=AutoscalerOptions(idle_timeout_seconds=_IDLE_SECONDS) if hosts.is_elastic else None,
        head_group_spec=HeadGroup(
            ray_start_params={"num-cpus": "0", "num-gpus": "0"}, template=head_pod(deployment, settings, name)
        ),
        worker_group_specs=[
            WorkerGroup(
                group_name="workers",
                replicas=hosts.min_hosts,
                min_replicas=hosts.min_hosts,
                max_replicas=hosts.max_hosts,
                labels=dict(deployment.request.labels) or None,
                ray_start_params=_start_parameters(deployment, hosts),
                template=worker_pod(deployment, settings, name, hosts),
            )
        ],
    )
    return RayJob(
        metadata=Metadata(name=name, namespace=settings.namespace),
        spec=RayJobSpec(
            entrypoint=f"cd {shlex.quote(settings.workdir)} && exec {shlex.join(deployment.command)}",
            runtime_env_yaml=_runtime_env(deployment),
            backoff_limit=settings.retries,
            ttl_seconds_after_finished=_KEPT_SECONDS,
            ray_cluster_spec=cluster,
        ),
    )


def object_name(run_id: str) -> str:
    """The name of the RayJob of a run: its id, in the letters that Kubernetes allows."""
    name = re.sub(r"[^a-z0-9]+", "-", run_id.lower()).strip("-")
    if not name[0].isalpha():
        name = f"run-{name}"
    if len(name) <= _MAX_NAME_LENGTH:
        return name
    digest = hashlib.sha256(run_id.encode()).hexdigest()[:8]
    return f"{name[: _MAX_NAME_LENGTH - 9].rstrip('-')}-{digest}"


def _start_parameters(deployment: Deployment, hosts: Hosts) -> dict[str, str]:
    """The options of `ray start` on each worker host."""
    parameters = hosts.ray_resources
    accelerator = deployment.request.accelerator
    if accelerator is not None:
        parameters["resources"] = f'"{{\\"accelerator_type:{accelerator}\\": 1}}"'
    return parameters


def _runtime_env(deployment: Deployment) -> str:
    environment: dict[str, Any] = {
        "env_vars": submitted_variables(deployment.request.grace_seconds, deployment.variables)
    }
    if deployment.packages:
        environment["pip"] = list(deployment.packages)
    return yaml.safe_dump(environment, sort_keys=False)


def _check(deployment: Deployment, settings: KubeRaySettings) -> None:
    error = deployment.job.error
    if deployment.is_on_object_store and not (settings.storage_secret or settings.service_account):
        raise JobError(
            f"pods need credentials for {deployment.storage}: --with storage_secret=NAME names the Secret that holds "
            "them as environment variables, --with service_account=NAME an account that may use the store",
            field="--with",
        )
    if not deployment.is_on_object_store and not settings.volume_claim:
        raise error(
            "storage",
            f"{deployment.storage} is a folder, and pods share none; --with volume_claim=NAME mounts a "
            "PersistentVolumeClaim there, --runs-dir s3://BUCKET/PREFIX keeps the runs on an object store",
        )
    check_labels(deployment, ", or leave it to --with node_selector=KEY=VALUE")
    if deployment.request.accelerator is not None and not settings.node_selector:
        raise error(
            "resources.accelerator",
            "Kubernetes has no common name for types of GPU; add the label of nodes that have it, such as --with "
            "node_selector=cloud.google.com/gke-accelerator=nvidia-h100-80gb",
        )


def _explanation(deployment: Deployment, settings: KubeRaySettings, job: RayJob) -> list[str]:
    namespace = f" -n {settings.namespace}" if settings.namespace else ""
    name = job.metadata.name
    lines = [
        f"distrib run {deployment.run_id} as a KubeRay RayJob (KubeRay 1.6 or newer).",
        f"  start   kubectl apply{namespace} -f FILE",
        f"  watch   kubectl get rayjob{namespace} {name} -w",
        f"  stop    kubectl delete rayjob{namespace} {name}",
        f"Applied again after it was deleted, the run resumes from its newest checkpoint in {deployment.storage}.",
    ]
    if settings.token_secret is None:
        lines.append("KubeRay generates the cluster's token and keeps it in a Secret with the cluster's name.")
    return lines


def _write(deployment: Deployment, settings: KubeRaySettings, hosts: Hosts) -> Rendered:
    job = make_ray_job(deployment, settings, hosts)
    return Rendered(_explanation(deployment, settings, job), to_yaml(job))


KUBERAY = Renderer("kuberay", KubeRaySettings, _check, hosts_of, _write)
"""Renders a RayJob."""
