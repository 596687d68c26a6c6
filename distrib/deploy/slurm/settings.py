"""What Slurm needs to know beyond the job."""

from __future__ import annotations

from pydantic import Field

from distrib.deploy.settings import TargetSettings

_WORD = r"^[A-Za-z0-9][A-Za-z0-9_.,:@&|()*\[\]-]*$"


class SlurmSettings(TargetSettings):
    """Settings of `--render slurm` and `--on slurm`."""

    time: str | None = Field(default=None, pattern=r"^([0-9]+-)?[0-9]+(:[0-9]{1,2}){0,2}$")
    """The time limit, as `--time` of sbatch takes it; by default the partition's."""
    partition: str | None = Field(default=None, pattern=_WORD)
    """The partition."""
    account: str | None = Field(default=None, pattern=_WORD)
    """The account that is charged."""
    qos: str | None = Field(default=None, pattern=_WORD)
    """The quality of service."""
    constraint: str | None = Field(default=None, pattern=_WORD)
    """Features that the nodes must have."""
    setup: str | None = None
    """A shell command that makes `distrib` and `ray` available on a node, such as `module load python`; by default
    the folder of this Python is put in front of PATH."""
    requeues: int = Field(default=100, ge=0)
    """How often the job queues again after its time limit."""
    port: int = Field(default=6379, ge=1024, le=65535)
    """The port of Ray's head."""
