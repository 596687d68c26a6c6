"""How object stores are reached: endpoint, region and time-outs."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

CONNECT_TIMEOUT_SECONDS = 3.0
REQUEST_TIMEOUT_SECONDS = 15.0


def endpoint_of_s3() -> str | None:
    """The endpoint of an S3 that is not Amazon's, from the environment."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")


def region_of_s3(bucket: str) -> str:
    """The region of a bucket, from the environment or, for Amazon's S3, by asking it."""
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if region is None and endpoint_of_s3() is None:
        from pyarrow import fs

        region = str(fs.resolve_s3_region(bucket))
    return region or "us-east-1"


def connect(url: str) -> Any:
    """The pyarrow file system of a URL, without built-in retries."""
    from pyarrow import fs

    scheme, _, path = url.partition("://")
    if scheme == "gs":
        return fs.GcsFileSystem(retry_time_limit=timedelta(seconds=CONNECT_TIMEOUT_SECONDS))
    return fs.S3FileSystem(
        endpoint_override=endpoint_of_s3(),
        region=region_of_s3(path.partition("/")[0]),
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=1),
        connect_timeout=CONNECT_TIMEOUT_SECONDS,
        request_timeout=REQUEST_TIMEOUT_SECONDS,
        allow_delayed_open=True,  # a small object takes one request instead of three
    )
