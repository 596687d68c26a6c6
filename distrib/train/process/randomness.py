"""Randomness is derived, never carried on: every seed is a function of what it is for."""

from __future__ import annotations

import hashlib
import random
import sys

import torch


def derive_seed(*parts: int | str) -> int:
    """63 bits: the first 8 bytes, big-endian, of SHA-256 of the parts joined by `:`, shifted right by one bit."""
    digest = hashlib.sha256(":".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def reseed(seed: int) -> None:
    """Seeds torch (CPU and CUDA), Python's `random` and, where it is loaded, NumPy's global generator.

    `torch.manual_seed` would take 0.8 ms: it notes the call's stack for each kind of device that is not in use.
    """
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(seed)
    random.seed(seed)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(seed & 0xFFFFFFFF)
