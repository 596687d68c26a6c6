"""The fields of KubeRay's RayJob that we render, as typed models; names and meaning as in its API reference.

The version is ray.io/v1. `authOptions.secretName` needs KubeRay 1.6; all other fields are in 1.5.1 too.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from distrib.deploy.kuberay.kubernetes import Metadata, PodTemplate, Resource


class AuthOptions(Resource):
    """How clients prove that they may use the cluster."""

    mode: Literal["token"] = "token"
    secret_name: str | None = None
    """The Secret whose key `auth_token` is the token; by default the operator generates one for each cluster."""


class AutoscalerOptions(Resource):
    """How the number of worker pods follows the demand."""

    version: Literal["v2"] = "v2"
    idle_timeout_seconds: int


class HeadGroup(Resource):
    """The head: Ray's services and the launcher."""

    ray_start_params: dict[str, str]
    template: PodTemplate


class WorkerGroup(Resource):
    """Worker pods of one shape."""

    group_name: str
    replicas: int
    min_replicas: int
    max_replicas: int
    labels: dict[str, str] | None = None
    """Ray's labels of the hosts."""
    ray_start_params: dict[str, str]
    template: PodTemplate


class RayCluster(Resource):
    """The spec of a RayCluster."""

    ray_version: str
    auth_options: AuthOptions
    enable_in_tree_autoscaling: bool | None = None
    autoscaler_options: AutoscalerOptions | None = None
    head_group_spec: HeadGroup
    worker_group_specs: list[WorkerGroup]


class RayJobSpec(Resource):
    """A job, and the cluster that is started for it."""

    submission_mode: Literal["HTTPMode"] = "HTTPMode"
    """The operator sends the entrypoint, which so passes one shell instead of two, and no further pod is started."""
    entrypoint: str
    runtime_env_yaml: str = Field(alias="runtimeEnvYAML")
    backoff_limit: int
    shutdown_after_job_finishes: bool = True
    ttl_seconds_after_finished: int
    ray_cluster_spec: RayCluster


class RayJob(Resource):
    """The object that `kubectl apply` takes."""

    api_version: Literal["ray.io/v1"] = "ray.io/v1"
    kind: Literal["RayJob"] = "RayJob"
    metadata: Metadata
    spec: RayJobSpec
