"""How DistributedDataParallel groups gradients into buckets, which it reports only in its logging data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch.nn.parallel import DistributedDataParallel

from distrib.compat.symbols import PrivateSymbol

SYMBOLS = (
    PrivateSymbol(
        "torch.nn.parallel.DistributedDataParallel._get_ddp_logging_data",
        "which parameters share a bucket, which decides how communication overlaps the backward pass",
        ("2.13",),
        "the buckets are unknown",
    ),
)


def bucket_layout(model: DistributedDataParallel) -> list[list[int]]:
    """The indices of the parameters of each bucket, in the order of reduction.

    Empty if unknown, as before the third forward pass and with unused parameters, where DDP keeps its first buckets.
    """
    text = str(_logging_data(model).get("rebuilt_per_bucket_param_indices", ""))
    return [[int(index) for index in bucket.split()] for bucket in text.split(",") if bucket.strip()]


def bucket_bytes(model: DistributedDataParallel) -> list[float]:
    """The size of each bucket; empty if unknown."""
    return [float(size) for size in str(_logging_data(model).get("bucket_sizes", "")).split(",") if size.strip()]


def _logging_data(model: DistributedDataParallel) -> Mapping[str, Any]:
    read = getattr(model, "_get_ddp_logging_data", None)
    found: Mapping[str, Any] = {} if read is None else read()
    return found
