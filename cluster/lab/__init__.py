"""Emulates several hosts on one Linux machine, each with its own address and Ray node, to rehearse failures."""

from cluster.lab.errors import LabError
from cluster.lab.lab import Lab

__all__ = ["Lab", "LabError"]
