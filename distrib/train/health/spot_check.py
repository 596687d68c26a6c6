"""Whether the same index gives the same sample on all ranks, found before the first step by one sample."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy
import torch

from distrib.train.data.batches import parts_of
from distrib.train.data.loader import Fetcher
from distrib.train.data.sampler import EpochIndices
from distrib.train.health.alike import RanksDifferError
from distrib.train.health.replicas import hardware_of
from distrib.train.phases import Phase
from distrib.train.process.forked import run_forked
from distrib.train.process.randomness import derive_seed
from distrib.train.process.rank_tree import RankTree
from distrib.train.rank import Rank

_PATIENCE_SECONDS = 10.0
"""A sample that takes longer to fetch is not compared."""
_QUICK_SECONDS = 0.2
_UNSEEDED = (
    "is random in a way that no seed repeats, so a resumed run is not exact and depends on the number of workers; draw "
    "from torch's, Python's or NumPy's global generators, which are seeded for each sample, not from "
    "numpy.random.default_rng(), os.urandom or a generator of the dataset's own"
)
_ADVICE = (
    "look for files that differ between the hosts, for random numbers in the dataset's __init__, and for code that "
    "depends on the rank, the host or the time"
)


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


def check_samples(rank: Rank, dataset: Any) -> list[str]:
    """Compares one sample of the training data over the ranks, all of which call it together.

    The sample is fetched as training fetches it, seeded by its index, so augmentation is the same on all ranks.

    Args:
        rank: This rank.
        dataset: The training data.

    Returns:
        What is to be reported.

    Raises:
        RanksDifferError: The sample is not the same on all ranks, and `failures.drift` is `stop`.
    """
    settings = rank.settings
    if rank.info.world_size == 1 or settings.drift == "ignore":
        return []
    fetcher = Fetcher(dataset, _as_is, settings.seed)
    index = derive_seed("spot check", settings.seed) % len(dataset)
    with rank.progress.during(Phase.DATA):
        found = compare_samples(
            lambda: fetch_digest(fetcher, index, in_loader_worker=settings.loader_workers > 0),
            RankTree(rank.control_group),
            hardware_of(rank.device),
        )
    if found is None:
        return []
    message = f"data.train: sample {index} {found.message}"
    if found.is_error and settings.drift == "stop":
        raise RanksDifferError(f"{message}; failures.drift=warn continues in spite of the difference")
    return [message]


@dataclass(frozen=True)
class SampleDifference:
    """How the sample differs.

    Attributes:
        message: For people.
        is_error: Whether the ranks would train on different data.
    """

    message: str
    is_error: bool = False


def compare_samples(fetch: Callable[[], SampleDigest], tree: RankTree, hardware: str) -> SampleDifference | None:
    """Compares what `fetch` returns over the ranks, and on each rank with what it returns again.

    Forked ranks have inherited the same generators, so random samples may be equal at first. A sample that takes long
    is only fetched again if the ranks differ.

    Args:
        fetch: Fetches the sample.
        tree: All ranks.
        hardware: What rounding depends on.

    Returns:
        None if all ranks have the same.
    """
    started = time.monotonic()
    first = fetch()
    is_quick = time.monotonic() - started < _QUICK_SECONDS
    is_repeatable = not is_quick or fetch() == first
    if tree.combine_objects((first, is_repeatable), lambda rows: set(rows) == {(rows[0][0], True)}):
        return None
    if not is_quick:
        is_repeatable = fetch() == first
    found: SampleDifference | None = tree.combine_objects((first, is_repeatable, hardware), _compare)
    return found


def fetch_digest(fetcher: Fetcher, index: int, *, in_loader_worker: bool) -> SampleDigest:
    """Fetches a sample in this process, or in a forked one if loader workers are to open the dataset's files."""
    if not in_loader_worker:
        return _fetch(fetcher, index)

    def work() -> bytes:
        digest = _fetch(fetcher, index)
        return json.dumps([digest.numbers, digest.rest, digest.problem]).encode()

    answer = run_forked(work, _PATIENCE_SECONDS)
    return SampleDigest(*json.loads(answer)) if answer else SampleDigest(None)


def _fetch(fetcher: Fetcher, index: int) -> SampleDigest:
    try:
        return SampleDigest.of(fetcher.__getitems__(EpochIndices([index], 0)))
    except Exception as error:  # training itself will report it, if it uses this sample
        return SampleDigest(None, problem=f"{type(error).__name__}: {error}".partition("\n")[0])


def _compare(rows: list[tuple[SampleDigest, bool, str]]) -> SampleDifference | None:
    """How the ranks differ; called on rank 0 with what all ranks have."""
    first = rows[0][0]
    fetched = [digest for digest, _, _ in rows]
    if any(digest.numbers is None for digest in fetched):
        return _compare_problems(fetched)
    if not all(is_repeatable for _, is_repeatable, _ in rows):
        return SampleDifference(_UNSEEDED)
    other = next(number for number, digest in enumerate(fetched) if digest != first)
    others = [number for number, digest in enumerate(fetched) if digest.numbers != first.numbers]
    if not others:
        return SampleDifference(f"has other texts on rank {other} than on rank 0: {_ADVICE}")
    message = f"is not the same on rank {others[0]} as on rank 0: {_ADVICE}"
    if len({hardware for _, _, hardware in rows}) > 1:
        return SampleDifference(
            f"{message}; the ranks run on different hardware or versions, which may round differently"
        )
    return SampleDifference(message, is_error=True)


def _compare_problems(fetched: list[SampleDigest]) -> SampleDifference | None:
    """A sample that only some ranks can fetch."""
    failed = next((number for number, digest in enumerate(fetched) if digest.problem), None)
    well = next((number for number, digest in enumerate(fetched) if digest.numbers is not None), None)
    if failed is None or well is None:
        return None
    message = f"cannot be read on rank {failed}, but can on rank {well}: {fetched[failed].problem}"
    return SampleDifference(f"{message}; look for files that only some hosts have", is_error=True)


def _as_is(samples: list[Any]) -> list[Any]:
    return samples
