"""The families of measurements by name; each measures its own rows in rounds."""

from collections.abc import Callable

from tests.bench.compare import Row
from tests.bench.families import (
    char_gpt,
    checkpoints,
    cluster,
    command_line,
    control,
    digits,
    hosts,
    inference,
    memory,
    on_ray,
    other_peers,
    recovery,
    scaling,
    scripts,
    trackers,
)

FAMILIES: dict[str, Callable[[int], list[Row]]] = {
    "checkpoints": checkpoints.measure,
    "cli": command_line.measure,
    "cluster": cluster.measure,
    "control": control.measure,
    "digits": digits.measure,
    "gpt": char_gpt.measure,
    "hosts": hosts.measure,
    "inference": inference.measure,
    "memory": memory.measure,
    "peers": other_peers.measure,
    "ray": on_ray.measure,
    "recovery": recovery.measure,
    "scaling": scaling.measure,
    "scripts": scripts.measure,
    "serve-minute": inference.sustain,
    "trackers": trackers.measure,
}
"""Given a number of rounds, the rows of a family."""
