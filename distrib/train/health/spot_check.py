"""Whether the same index gives the same sample on all ranks, found before the first step by one sample."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from distrib.train.health.alike import RanksDifferError
from distrib.train.health.replicas import hardware_of
from distrib.train.health.spot_sample import NOT_FETCHED, Fetched, SampleDigest, SpotSample
from distrib.train.phases import Phase
from distrib.train.process.randomness import derive_seed
from distrib.train.process.rank_tree import RankTree
from distrib.train.rank import Rank

_UNSEEDED = (
    "is random in a way that no seed repeats, so a resumed run is not exact and depends on the number of workers; draw "
    "from torch's, Python's or NumPy's global generators, which are seeded for each sample, not from "
    "numpy.random.default_rng(), os.urandom or a generator of the dataset's own"
)
_ADVICE = (
    "look for files that differ between the hosts, for random numbers in the dataset's __init__, and for code that "
    "depends on the rank, the host or the time"
)


def check_samples(rank: Rank, dataset: Any, *, is_shareable: bool) -> list[str]:
    """Compares one sample of the training data over the ranks, all of which call it together.

    The sample is fetched as training fetches it, seeded by its index, so augmentation is the same on all ranks.

    Args:
        rank: This rank.
        dataset: The training data.
        is_shareable: Whether a forked process may use it: it has no connection open. Otherwise it is not compared.

    Returns:
        What is to be reported.

    Raises:
        RanksDifferError: The sample is not the same on all ranks, and `failures.drift` is `stop`.
    """
    settings = rank.settings
    if rank.info.world_size == 1 or settings.drift == "ignore":
        return []
    index = derive_seed("spot check", settings.seed) % len(dataset)
    sample = SpotSample(dataset, index, settings.seed)
    with rank.progress.during(Phase.DATA):
        tree = RankTree(rank.control_group)
        fetched = sample.fetch() if is_shareable else NOT_FETCHED
        found = compare_samples(fetched, sample.fetch, tree, hardware_of(torch.device("cpu")))
    if found is None:
        return []
    message = f"data.train: sample {index} {found.message}"
    if found.is_error and settings.drift == "stop":
        raise RanksDifferError(f"{message}; failures.drift=warn continues in spite of the difference")
    return [message]


def check_samples_of_loop(rank: Rank, sample: SpotSample) -> tuple[str | None, list[str]]:
    """Compares a sample of a script's loop over the ranks, all of which call it together.

    Returns:
        A digest of the sample, None if there is none that could be compared, and what is to be reported.

    Raises:
        RanksDifferError: The sample is not the same on all ranks.
    """
    fetched = sample.fetch()
    digest = fetched.digest.numbers if fetched.is_repeatable else None
    if rank.info.world_size == 1:
        return digest, []
    found = compare_samples(fetched, sample.fetch, RankTree(rank.control_group), hardware_of(torch.device("cpu")))
    if found is None:
        return digest, []
    message = f"session.batches: sample {sample.index} {found.message}"
    if found.is_error:
        raise RanksDifferError(f"{message}; random data is the same on all ranks if torch.manual_seed comes first")
    return digest, [message]


@dataclass(frozen=True)
class SampleDifference:
    """How the sample differs.

    Attributes:
        message: For people.
        is_error: Whether the ranks would train on different data.
    """

    message: str
    is_error: bool = False


def compare_samples(
    found: Fetched, fetch: Callable[..., Fetched], tree: RankTree, hardware: str
) -> SampleDifference | None:
    """Compares what has been fetched over the ranks, and on each rank with what it is when it is fetched again.

    Forked ranks have inherited the same generators, so random samples may be equal at first. A sample that takes long
    is only fetched again if the ranks differ.

    Args:
        found: What `fetch` has returned.
        fetch: See `SpotSample.fetch`.
        tree: All ranks.
        hardware: What rounding depends on.

    Returns:
        None if all ranks have the same.
    """
    if tree.combine_objects((found.digest, found.is_repeatable), lambda rows: set(rows) == {(rows[0][0], True)}):
        return None
    if not found.was_repeated:
        found = replace(fetch(is_repeated=True), digest=found.digest)
    mine = (found.digest, found.is_repeatable, hardware)
    difference: SampleDifference | None = tree.combine_objects(mine, _compare)
    return difference


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
