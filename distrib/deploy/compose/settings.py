"""What Docker Compose needs to know beyond the job."""

from __future__ import annotations

from pydantic import Field

from distrib import __version__
from distrib.deploy.settings import TargetSettings


class ComposeSettings(TargetSettings):
    """Settings of `--render compose`."""

    image: str = f"distrib:{__version__}"
    """The image of both hosts, with distrib and the job's code; see cluster/Dockerfile."""
    workdir: str = Field(default="/job", pattern="^/")
    """The folder of the image that holds the job's code, where `distrib run` is executed."""
    token_file: str = "./ray_token"
    """The file that holds Ray's token, from the folder of the compose file."""
    env_file: tuple[str, ...] = ()
    """Files of environment variables, such as those that open an object store; repeatable."""
    user: str = Field(default="1000:1000", pattern=r"^[0-9]+:[0-9]+$")
    """User and group of the containers' processes, who must be able to read the token and to write the runs."""
    shared_memory: str = Field(default="2gb", pattern=r"^[1-9][0-9]*(mb|gb)$")
    """Size of /dev/shm, which NCCL, data loaders and Ray's object store share."""
