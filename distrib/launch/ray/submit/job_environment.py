"""The environment of Ray's head, and of a Ray job that runs `distrib run`."""

from __future__ import annotations

from collections.abc import Mapping

from distrib.launch.ray.cluster.settings import RAY_SETTINGS

HEAD_SETTINGS = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
}
"""With these a head takes seconds instead of a minute to find out that a host is gone; as in `cluster/head.env`."""

_STOP_MARGIN_SECONDS = 15


def submitted_variables(grace_seconds: float, variables: Mapping[str, str]) -> dict[str, str]:
    """The environment variables of a Ray job that runs `distrib run`; `variables` are the user's and win.

    Ray ends a job by SIGTERM and, 3 seconds later, SIGKILL; here it sends SIGINT and waits for the last checkpoint.
    """
    return {
        **RAY_SETTINGS,
        "PYTHONUNBUFFERED": "1",
        "RAY_JOB_STOP_SIGNAL": "SIGINT",
        "RAY_JOB_STOP_WAIT_TIME_S": str(round(grace_seconds) + _STOP_MARGIN_SECONDS),
        **variables,
    }
