"""Joins a running Ray cluster, or says in one line why that is not possible; leaves it."""

from __future__ import annotations

import atexit
import logging
import os
import signal
import threading
from typing import Any

from distrib.compat.ray.gcs import refuses_token
from distrib.compat.ray.start import silence_worker_deaths
from distrib.errors import LaunchError
from distrib.launch.network import answers
from distrib.launch.ray.access.token import MODE_VARIABLE, describe_refusal, find_token

_CONNECT_SECONDS = 5.0


def connect(address: str, runtime_env: dict[str, Any]) -> None:
    """Connects this process to a running cluster.

    Args:
        address: `HOST:PORT` of the cluster's head, or `auto`.
        runtime_env: What Ray gives to all processes that this one starts.

    Raises:
        LaunchError: The cluster cannot be reached, or refuses.
    """
    import ray

    host, _, port = address.rpartition(":")
    is_there = host and port.isdigit() and answers(host.strip("[]"), int(port), _CONNECT_SECONDS)
    if address != "auto" and not is_there:
        raise LaunchError(f"no Ray cluster answers at {address}; on its head, `ray status` shows its state")
    _check_token(address)
    silence_worker_deaths()
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, runtime_env=runtime_env)
    except Exception as error:
        raise LaunchError(f"cannot connect to the Ray cluster at {address}: {error}") from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_sigterm)  # Ray has installed one


def disconnect(*, is_lost: bool) -> None:
    """Ends this process's connection; one to a lost cluster ends with the process, as Ray would wait for an answer."""
    import ray

    if is_lost:
        atexit.unregister(ray.shutdown)
    else:
        ray.shutdown()


def start_idle_worker() -> None:
    """Starts a worker process ahead of the actor that needs one, if nothing else is idle; returns at once."""
    import ray

    ray.remote(num_cpus=0, max_retries=0)(_do_nothing).remote()


def _do_nothing() -> None:
    pass


def _check_token(address: str) -> None:
    """Refuses to connect without the right token: Ray would repeat itself for a while, or end this process."""
    token = find_token()
    is_missing = token is None and os.environ.get(MODE_VARIABLE, "").lower() == "token"
    if is_missing or (address != "auto" and refuses_token(address)):
        raise LaunchError(describe_refusal(address, token))
