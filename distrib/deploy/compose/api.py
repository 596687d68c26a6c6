"""The fields of a Compose file that we render, as typed models; names and meaning as in the Compose specification."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Base of all models: unknown fields are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Mount(Section):
    """A folder of the machine that a container sees."""

    type: str = "bind"
    source: str
    target: str


class Device(Section):
    """GPUs that a container gets."""

    driver: str = "nvidia"
    device_ids: list[str]
    capabilities: list[str] = ["gpu"]


class Reservations(Section):
    """What a container is promised."""

    devices: list[Device]


class DeployResources(Section):
    """What a container may use."""

    reservations: Reservations


class Deploy(Section):
    """How a service is run."""

    resources: DeployResources


class Service(Section):
    """A container."""

    image: str
    hostname: str
    user: str
    working_dir: str
    command: list[str]
    environment: dict[str, str]
    env_file: list[str] | None = None
    secrets: list[str]
    volumes: list[Mount] | None = None
    shm_size: str
    stop_signal: str = "SIGINT"
    stop_grace_period: str
    security_opt: list[str] = ["no-new-privileges:true"]
    cap_drop: list[str] = ["ALL"]
    deploy: Deploy | None = None


class SecretFile(Section):
    """A file that containers see under /run/secrets."""

    file: str


class Compose(Section):
    """A Compose file."""

    name: str
    services: dict[str, Service]
    secrets: dict[str, SecretFile]
