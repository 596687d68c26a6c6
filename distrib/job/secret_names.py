"""Which environment variables hold secrets, and how their values are kept out of what people read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

MASK = "*****"

_SECRET_NAME = re.compile(
    r"(^|_)(TOKEN|SECRET|SECRETS|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY|KEY)(_|$)",
    re.IGNORECASE,
)
_NOT_SECRET_NAME = re.compile(r"_(PATH|FILE|NAME|URL|REGION|MODE)$|^GOOGLE_APPLICATION_CREDENTIALS$", re.IGNORECASE)
"""Names that say where a secret is, not what it is, such as `RAY_AUTH_TOKEN_PATH`."""
_MIN_MASKED_LENGTH = 4
"""Shorter values are left alone: masking every `1` of a message would make it unreadable."""


def is_secret_name(name: str) -> bool:
    """Whether an environment variable of this name usually holds a secret, such as `WANDB_API_KEY`."""
    return bool(_SECRET_NAME.search(name)) and not _NOT_SECRET_NAME.search(name)


def secret_values(variables: Mapping[str, str]) -> list[str]:
    """The values of `variables` whose names look like secrets."""
    return [value for name, value in variables.items() if is_secret_name(name)]


def mask(text: str, secrets: Iterable[str]) -> str:
    """`text` with each of `secrets` replaced by asterisks."""
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= _MIN_MASKED_LENGTH:
            text = text.replace(secret, MASK)
    return text
