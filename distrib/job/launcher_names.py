"""The names of the launchers, apart from what needs the spec: the command line's help must be instant."""

from typing import Literal

LauncherName = Literal["local", "ray"]
