"""The error of a lab: what could not be done, and the way out."""

from distrib.errors import LaunchError


class LabError(LaunchError):
    """The lab cannot do what was asked (exit code 3)."""
