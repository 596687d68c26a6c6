"""The error of a lab."""

from distrib.errors import LaunchError


class LabError(LaunchError):
    """The lab cannot carry out a request (exit code 3)."""
