"""How a reliance on something that a library does not promise to keep is described."""

from __future__ import annotations

from dataclasses import dataclass

PYTHON_VERSIONS = ("3.11", "3.12", "3.13")
"""The versions of Python on which all tests are tried."""

TORCH_VERSIONS = ("2.11", "2.13", "2.14", "2.15")
"""The versions of torch that the package's requirement admits; `make test-versions` tries the suite with each."""

RAY_VERSIONS = ("2.55", "2.60")
"""The versions of Ray that are tried in the same way: the oldest and the newest that the requirement admits."""


@dataclass(frozen=True)
class PrivateSymbol:
    """Something of another library that is not part of its public API.

    Attributes:
        name: Its full name; for an error text, the module of the library that raises it and what the text is about.
        reason: What it is used for, and why no public API does as well.
        versions: The versions of the library on which it was checked.
        fallback: What happens in a version that does not have it.
    """

    name: str
    reason: str
    versions: tuple[str, ...]
    fallback: str
