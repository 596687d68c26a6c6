"""A sample fetched apart from training, and a digest of it."""

from __future__ import annotations

import functools
import hashlib
import json
import time
from dataclasses import dataclass
from typing import Any

import numpy
import torch
from torch.utils.data import TensorDataset

from distrib.train.data.batches import parts_of
from distrib.train.data.loader import Fetcher
from distrib.train.data.sampler import EpochIndices
from distrib.train.process.forked import run_forked

_PATIENCE_SECONDS = 5.0
"""A sample that takes longer to fetch is not compared."""
_QUICK_SECONDS = 0.2


@dataclass(frozen=True)
class SampleDigest:
    """What is compared of a sample.

    Attributes:
        numbers: A digest of its structure, tensors, arrays and numbers; None if it was not fetched.
        rest: A digest of its texts, which may name files that are elsewhere on another host.
        problem: The error that fetching it raised.
    """

    numbers: str | None
    rest: str = ""
    problem: str = ""

    @classmethod
    def of(cls, sample: Any) -> SampleDigest:
        """Reads a sample; of unknown objects only the types count."""
        numbers, rest = hashlib.sha256(), hashlib.sha256()

        def add(value: Any) -> None:
            tensor = value.detach() if isinstance(value, torch.Tensor) else value
            if isinstance(tensor, torch.Tensor):
                numbers.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
                if tensor.layout == torch.strided and not tensor.is_quantized:
                    numbers.update(tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
            elif isinstance(value, numpy.ndarray):
                numbers.update(f"{value.dtype} {value.shape}".encode())
                numbers.update(b"" if value.dtype.hasobject else value.tobytes())
            elif isinstance(value, bool | int | float | complex | numpy.generic) or value is None:
                numbers.update(repr(value).encode())
            elif isinstance(value, str | bytes):
                rest.update(repr(value).encode())
            elif (parts := parts_of(value)) is not None:
                numbers.update(f"{type(value).__qualname__} {len(parts)}".encode())
                for key in sorted(parts, key=str):
                    rest.update(repr(key).encode())
                    add(parts[key])
            else:
                numbers.update(type(value).__qualname__.encode())

        add(sample)
        return cls(numbers.hexdigest(), rest.hexdigest())


@dataclass(frozen=True)
class Fetched:
    """What has been fetched of a sample.

    Attributes:
        digest: What is compared of it.
        is_repeatable: Whether it was the same when it was fetched again.
        was_repeated: Whether it was fetched again.
    """

    digest: SampleDigest
    is_repeatable: bool = True
    was_repeated: bool = False


NOT_FETCHED = Fetched(SampleDigest(None), was_repeated=True)


class SpotSample:
    """A sample of a dataset, fetched as training fetches it.

    The dataset's code runs in a forked process, so that training does not see it: a dataset may count its samples, keep
    some, or open files that loader workers shall open. Rows of a `TensorDataset` run no such code.

    Args:
        dataset: The dataset.
        index: Of the sample.
        seed: The training's seed.
    """

    def __init__(self, dataset: Any, index: int, seed: int) -> None:
        self._fetcher = Fetcher(dataset, _as_is, seed)
        self.index = index
        is_plain = isinstance(dataset, TensorDataset)
        self._runs_code = not is_plain or type(dataset).__getitem__ is not TensorDataset.__getitem__

    def fetch(self, *, is_repeated: bool = False) -> Fetched:
        """Fetches the sample, and fetches it again if that is quick or `is_repeated`."""
        if not self._runs_code:
            return Fetched(self._digest())
        answer = run_forked(functools.partial(self._encoded, is_repeated), _PATIENCE_SECONDS)
        if not answer:
            return NOT_FETCHED
        digest, is_repeatable, was_repeated = json.loads(answer)
        return Fetched(SampleDigest(*digest), is_repeatable, was_repeated)

    def _encoded(self, is_repeated: bool) -> bytes:
        started = time.monotonic()
        first = self._digest()
        if first.problem:  # which may pass, as of a file that another rank writes
            first = self._digest()
        is_repeated = is_repeated or time.monotonic() - started < _QUICK_SECONDS
        is_repeatable = not is_repeated or self._digest() == first
        return json.dumps([[first.numbers, first.rest, first.problem], is_repeatable, is_repeated]).encode()

    def _digest(self) -> SampleDigest:
        try:
            return SampleDigest.of(self._fetcher.__getitems__(EpochIndices([self.index], 0)))
        except Exception as error:  # training itself will report it, if it uses this sample
            return SampleDigest(None, problem=f"{type(error).__name__}: {error}".partition("\n")[0])


def _as_is(samples: list[Any]) -> list[Any]:
    return samples
