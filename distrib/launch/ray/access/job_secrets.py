"""Secrets on their way to a job: kept out of Ray's runtime environments, which stand in logs and process arguments.

A submitted job finds them in the head's key-value store, which only clients with the cluster's token can read; its
launcher takes them from there, and hands them to the ranks through the run's own entries.
"""

from __future__ import annotations

import json
import os
import secrets
import urllib.request
from collections.abc import Mapping

from distrib.compat.ray import gcs
from distrib.errors import LaunchError
from distrib.job.secret_names import is_secret_name
from distrib.launch.ray.access.token import Token

SOURCE_VARIABLE = "DISTRIB_SECRETS"
"""In a submitted job's environment: under which key its secrets are kept."""
NAMES_VARIABLE = "DISTRIB_SECRET_NAMES"
"""In the launcher's environment: the names of the variables that were received, which the ranks get too."""
_TIMEOUT_SECONDS = 30


def split_secrets(variables: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Variables for everyone to see, and those whose names look like secrets."""
    hidden = {name: value for name, value in variables.items() if is_secret_name(name)}
    return {name: value for name, value in variables.items() if name not in hidden}, hidden


def send_secrets(address: str, token: Token | None, variables: Mapping[str, str]) -> dict[str, str]:
    """Puts secrets into the cluster's store; returns the variables by which the job finds them.

    Args:
        address: The URL of the cluster's job server.
        token: What lets this client in.
        variables: The secrets by name.

    Raises:
        LaunchError: The cluster does not take them.
    """
    if not variables:
        return {}
    name = f"distrib-{secrets.token_hex(16)}.zip"  # the job server stores nothing else than packages
    request = urllib.request.Request(
        f"{address.rstrip('/')}/api/packages/gcs/{name}",
        data=json.dumps(dict(variables)).encode(),
        headers=token.headers if token else {},
        method="PUT",
    )
    try:
        urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS).close()
    except OSError as error:
        raise LaunchError(f"the cluster at {address} does not take the secrets of `env`: {error}") from error
    return {SOURCE_VARIABLE: f"gcs://{name}"}


def receive_secrets() -> None:
    """In a submitted job: puts the secrets that were sent with it into this process's environment.

    Raises:
        LaunchError: They no longer exist.
    """
    source, address = os.environ.pop(SOURCE_VARIABLE, None), os.environ.get("RAY_ADDRESS")
    if source is None or address is None:
        return
    text = gcs.take(address, source)
    if text is None:
        raise LaunchError("the secrets of `env` are gone: each submitted job can read them once; submit it again")
    received: dict[str, str] = json.loads(text)
    os.environ.update(received)
    os.environ[NAMES_VARIABLE] = ",".join(received)


def is_received(name: str) -> bool:
    """Whether a variable is among the secrets that were sent with this job."""
    return name in os.environ.get(NAMES_VARIABLE, "").split(",")
