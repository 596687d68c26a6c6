"""Which variables are taken for secrets, and that masking leaves nothing of them."""

import pytest

from distrib.job.secret_names import MASK, is_secret_name, mask, secret_values

SECRET = ["RAY_AUTH_TOKEN", "AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "wandb_api_key", "HF_TOKEN", "DB_PASSWORD"]
PLAIN = ["RAY_AUTH_TOKEN_PATH", "TOKENIZERS_PARALLELISM", "MAX_TOKENS", "AWS_REGION", "MONKEY", "PASSWORD_FILE", "HOME"]


@pytest.mark.parametrize("name", SECRET)
def test_secret(name):
    assert is_secret_name(name)


@pytest.mark.parametrize("name", [*PLAIN, "GOOGLE_APPLICATION_CREDENTIALS", "RAY_AUTH_MODE"])
def test_plain(name):
    assert not is_secret_name(name)


def test_masking_replaces_longer_secrets_first_and_leaves_short_ones():
    secrets = secret_values({"A_TOKEN": "abcd", "B_TOKEN": "abcdef", "C_TOKEN": "1", "HOME": "text"})
    assert mask("abcdef abcd 1 text", secrets) == f"{MASK} {MASK} 1 text"
