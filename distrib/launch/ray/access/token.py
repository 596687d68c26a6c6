"""The token that lets a client into a Ray cluster: where it is read, and the errors for a missing or wrong one."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from distrib.errors import JobError

TOKEN_VARIABLE = "RAY_AUTH_TOKEN"
TOKEN_FILE_VARIABLE = "RAY_AUTH_TOKEN_PATH"
MODE_VARIABLE = "RAY_AUTH_MODE"
_MISSING, _WRONG = 401, 403
_TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True, repr=False)
class Token:
    """A token, which is shown nowhere.

    Attributes:
        value: The token itself.
        source: Where it was read.
    """

    value: str
    source: str

    @property
    def headers(self) -> dict[str, str]:
        """The HTTP headers that carry it."""
        return {"Authorization": f"Bearer {self.value}"}


def find_token() -> Token | None:
    """The token, read where Ray reads it: a variable, the file that a variable names, or the file in the home folder.

    Raises:
        JobError: The named file has no token.
    """
    if os.environ.get(MODE_VARIABLE, "").lower() == "disabled":
        return None
    if value := os.environ.get(TOKEN_VARIABLE, "").strip():
        return Token(value, TOKEN_VARIABLE)
    named = os.environ.get(TOKEN_FILE_VARIABLE)
    path = Path(named) if named else Path.home() / ".ray" / "auth_token"
    try:
        value = path.read_text().strip()
    except OSError as error:
        if named:
            raise JobError(f"{path} cannot be read: {error.strerror}", field=TOKEN_FILE_VARIABLE) from error
        return None
    if not value and named:
        raise JobError(f"{path} is empty; it must hold the cluster's token", field=TOKEN_FILE_VARIABLE)
    return Token(value, str(path)) if value else None


def token_mode() -> dict[str, str]:
    """The setting that makes Ray use a token named by the environment; automatic only from Ray 2.61 on."""
    is_named = TOKEN_VARIABLE in os.environ or TOKEN_FILE_VARIABLE in os.environ
    return {MODE_VARIABLE: "token"} if is_named else {}


def refusal(address: str, token: Token | None) -> str | None:
    """Why the job server at `address` does not let this client in, with the way out; None if it does or is silent."""
    request = urllib.request.Request(f"{address.rstrip('/')}/api/version", headers=token.headers if token else {})
    try:
        urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS).close()
    except urllib.error.HTTPError as error:
        if error.code not in (_MISSING, _WRONG):
            return None
    except OSError:
        return None
    else:
        return None
    return describe_refusal(address, token)


def describe_refusal(address: str, token: Token | None) -> str:
    """That the cluster at `address` does not admit this client, with the way out."""
    way_out = f"set {TOKEN_VARIABLE}, or {TOKEN_FILE_VARIABLE} to a file that holds it"
    if token is None:
        return f"the cluster at {address} admits only clients with its token; {way_out}"
    return f"the cluster at {address} does not accept the token from {token.source}; {way_out}"
