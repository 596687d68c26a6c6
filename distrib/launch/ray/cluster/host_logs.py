"""What Ray has written last to its error logs on the hosts of a cluster, for workers that did not start there."""

from __future__ import annotations

from collections.abc import Mapping

_NUM_LINES = 5
_NUM_HOSTS = 4
_SECONDS = 5


def describe_error_logs(hosts: Mapping[str, str]) -> str:
    """The last lines by host, each on a line of its own; empty if there are none, or if no dashboard serves them.

    Args:
        hosts: The names of the hosts by Ray's node id; only the first four are read.
    """
    lines: list[str] = []
    for node_id, name in list(hosts.items())[:_NUM_HOSTS]:
        found = _error_lines(node_id)
        if found:
            lines += [f"the last lines of Ray's error log on {name}:", *(f"  {line}" for line in found)]
    return "\n".join(lines)


def _error_lines(node_id: str) -> list[str]:
    from ray.util.state import get_log

    try:
        text = "".join(get_log(node_id=node_id, filename="raylet.err", tail=_NUM_LINES, timeout=_SECONDS))
    except Exception:  # the dashboard does not run or does not answer, or the host is gone
        return []
    return [line.rstrip() for line in text.splitlines() if line.strip()]
