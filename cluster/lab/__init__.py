"""Many hosts on one Linux machine, each with an address and a Ray of its own, to rehearse failures with."""

from cluster.lab.errors import LabError
from cluster.lab.lab import Lab

__all__ = ["Lab", "LabError"]
