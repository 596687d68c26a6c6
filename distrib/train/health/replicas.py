"""Whether all ranks still have the same weights and optimizer state.

Buffers are not compared: they are computed from each rank's own samples, as BatchNorm's are, and belong to rank 0.
"""

from __future__ import annotations

import functools
import hashlib
import platform
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist

from distrib.train.failure import DriftError
from distrib.train.process.rank_tree import RankTree
from distrib.train.rank import Rank
from distrib.train.state import TrainingState

_WORD = 8
_ADVICE = (
    "look for an optimizer that the job's own code steps, for weights that are changed on some ranks only and for "
    "gradients that are not synchronized; if there is none, a device or its memory may be faulty. The checkpoints "
    "before this step are kept; failures.drift=warn continues in spite of the difference"
)
_PARTIAL = (
    "the optimizer splits its state over the ranks, but checkpoints hold only what rank 0 has, so a resumed run is not "
    "exact; use an optimizer that keeps all state on every rank"
)
_ROUNDING = "the ranks run on different hardware or versions, which round differently, so their weights drift apart"


@dataclass(frozen=True)
class Checksums:
    """Checksums of this rank's weights and optimizer state.

    Attributes:
        names: Of the tensors.
        values: Of each tensor two numbers, as int64 tensors on the tensors' devices.
    """

    names: list[str]
    values: list[torch.Tensor]

    @classmethod
    def of(cls, state: TrainingState) -> Checksums:
        """Reads every tensor once; on CUDA, the reading is queued before whatever changes the tensors later."""
        names: list[str] = []
        values: list[torch.Tensor] = []
        with torch.no_grad():
            for name, tensor in _tensors(state):
                names.append(name)
                values += checksum(tensor)
        return cls(names, values)

    def read(self) -> dict[str, tuple[int, int]]:
        """The checksums by name; waits for the device."""
        if not self.values:
            return {}
        devices = {value.device for value in self.values}
        numbers: list[int] = torch.stack([value.cpu() if len(devices) > 1 else value for value in self.values]).tolist()
        return dict(zip(self.names, zip(numbers[::2], numbers[1::2], strict=True), strict=True))


@dataclass(frozen=True)
class Identity:
    """Where a rank runs: the name of its host, and what the rounding of an update depends on there."""

    host: str
    hardware: str


@dataclass(frozen=True)
class Difference:
    """What differs between the ranks.

    Attributes:
        description: Which tensors, and on which ranks.
        rank: The only rank that differs from all others, if there is one.
        host: Its host.
        is_same_hardware: Whether all ranks have the same hardware, so that rounding cannot be the reason.
        is_partial: Whether tensors are only missing on some ranks and equal elsewhere.
    """

    description: str
    rank: int | None
    host: str | None
    is_same_hardware: bool
    is_partial: bool


class ReplicaCheck:
    """Compares what this rank holds with what the others hold; all ranks call it together.

    Args:
        rank: This rank.
        state: Its models and optimizers.
        group: A gloo group of all ranks.
    """

    def __init__(self, rank: Rank, state: TrainingState, group: dist.ProcessGroup) -> None:
        self._state = state
        self._policy = rank.settings.drift if rank.info.world_size > 1 else "ignore"
        self._tree = RankTree(group)
        self._identity = Identity(rank.info.host_name, hardware_of(rank.device))
        self._warnings: list[str] = []
        self._has_warned = False

    def checksums(self) -> Checksums | None:
        """Reads this rank's weights and optimizer state as they are now; None if nothing is to be compared."""
        return None if self._policy == "ignore" else Checksums.of(self._state)

    def compare(self, sums: Checksums | None, step: int) -> None:
        """Compares what was read at the end of a step with what the other ranks have read; a thread may do so.

        Raises:
            DriftError: The ranks differ.
        """
        found = None if sums is None else compare_replicas(sums, self._tree, self._identity)
        if found is None:
            return
        if self._policy == "stop" and found.is_same_hardware and not found.is_partial:
            raise DriftError(_message(found, step, _ADVICE), found.rank, found.host)
        if not self._has_warned:
            self._has_warned = True
            self._warnings.append(_message(found, step, _advice(found)))

    def take_warnings(self) -> list[str]:
        """What is to be reported since the last call."""
        warnings, self._warnings = self._warnings, []
        return warnings


def compare_replicas(sums: Checksums, tree: RankTree, identity: Identity) -> Difference | None:
    """Compares checksums over the ranks, all of which call it together.

    Args:
        sums: This rank's.
        tree: All ranks.
        identity: Where this rank runs.

    Returns:
        None if they are equal on all ranks.
    """
    mine = sums.read()
    digest = hashlib.sha256(repr(mine).encode()).digest()
    if tree.combine_objects(digest, lambda digests: len(set(digests)) == 1):
        return None
    found: Difference = tree.combine_objects((mine, identity), _difference)
    return found


def hardware_of(device: torch.device) -> str:
    """What the rounding of an update may depend on besides its inputs."""
    if device.type == "cuda":
        kind = torch.cuda.get_device_name(device)
    else:  # libraries choose their kernels by the model too
        kind = f"{cpu_model()}, {torch.backends.cpu.get_cpu_capability()}"
    return f"{kind}, torch {torch.__version__}, {torch.get_num_threads()} threads"


@functools.cache
def cpu_model() -> str:
    """The name of this host's CPU, as far as it is known."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def _advice(found: Difference) -> str:
    if found.is_partial:
        return _PARTIAL
    return _ADVICE if found.is_same_hardware else _ROUNDING


def _message(found: Difference, step: int, advice: str) -> str:
    return f"the ranks no longer hold the same at step {step}: {found.description}; {advice}"


def _tensors(state: TrainingState) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors that must be equal on all ranks, each with a name for people."""
    names: dict[int, str] = {}
    for model_name, model in state.models.items():
        for name, parameter in model.named_parameters():
            names[id(parameter)] = f"{model_name}.{name}"
            if parameter.layout == torch.strided:
                yield names[id(parameter)], parameter.detach()
    for optimizer_name, optimizer in state.optimizers.items():
        for number, parameter in enumerate(each for group in optimizer.param_groups for each in group["params"]):
            owner = names.get(id(parameter), f"parameter {number} of {optimizer_name}")
            for key, value in optimizer.state.get(parameter, {}).items():
                if isinstance(value, torch.Tensor) and value.numel() > 1 and value.layout == torch.strided:
                    yield f"{key} of {owner}", value.detach()


def checksum(tensor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The sum, modulo 2^64, and the exclusive or of a tensor's bytes, taken as integers of 8 bytes.

    Both are exact whatever the order of the additions. Either alone would miss simple changes: two elements that move
    in opposite directions, or an even number of equal elements that move alike.
    """
    flat = tensor.contiguous().view(-1).view(torch.uint8)
    missing = -flat.numel() % _WORD
    if missing or not flat.numel():
        flat = torch.cat([flat, flat.new_zeros(missing or _WORD)])
    words = _as_words(flat)
    return words.sum(), torch.hash_tensor(words).view(torch.int64)


def _as_words(flat: torch.Tensor) -> torch.Tensor:
    """Bytes as integers of 8 bytes; copied if they do not begin at a multiple of 8 of their storage."""
    return (flat if flat.storage_offset() % _WORD == 0 else flat.clone()).view(torch.int64)


def _difference(ranks: list[tuple[dict[str, tuple[int, int]], Identity]]) -> Difference:
    """Which tensors differ, and on which ranks; called with what all ranks have."""
    names = dict.fromkeys(name for sums, _ in ranks for name in sums)
    held = {name: {sums[name] for sums, _ in ranks if name in sums} for name in names}
    different = [name for name in names if len(held[name]) > 1]
    is_partial = not different
    different = different or [name for name in names if any(name not in sums for sums, _ in ranks)]
    values = [sums.get(different[0]) for sums, _ in ranks]
    ((common, count),) = Counter(values).most_common(1)
    rank = host = None
    if 2 * count > len(ranks):
        others = [number for number, value in enumerate(values) if value != common]
        if len(others) == 1:
            (rank,) = others
            host = ranks[rank][1].host
        where = (
            f"on rank{'s' if len(others) > 1 else ''} {', '.join(map(str, others))} is not what the other ranks have"
        )
    else:
        where = f"is not the same on ranks {', '.join(map(str, range(len(ranks))))}"
    more = f" (and {len(different) - 1} more, such as {different[1]})" if len(different) > 1 else ""
    is_same_hardware = len({identity.hardware for _, identity in ranks}) == 1
    return Difference(f"{different[0]} {where}{more}", rank, host, is_same_hardware, is_partial)
