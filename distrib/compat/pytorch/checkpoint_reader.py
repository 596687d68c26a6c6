"""Reads files of torch.distributed.checkpoint (DCP) without importing it, or running what else a pickle can hold."""

from __future__ import annotations

import enum
import io
import pickle
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import torch

from distrib.compat.pytorch.checkpoint import METADATA
from distrib.compat.symbols import PYTHON_VERSIONS, TORCH_VERSIONS, PrivateSymbol

SYMBOLS = (
    PrivateSymbol(
        "torch.distributed.checkpoint.metadata._MEM_FORMAT_ENCODING",
        "the one enum in the metadata, which some Pythons, such as 3.11.2, pickle as a call of getattr",
        TORCH_VERSIONS,
        "metadata that was pickled so is refused as damaged",
    ),
    PrivateSymbol(
        "torch.distributed.checkpoint.filesystem._StorageInfo",
        "a class in the metadata: which file a tensor lies in",
        TORCH_VERSIONS,
        "metadata that names another class is refused as damaged",
    ),
    PrivateSymbol(
        "torch.serialization._get_layout",
        "a function in the metadata: the layout of a tensor, such as strided",
        TORCH_VERSIONS,
        "metadata that names another function is refused as damaged",
    ),
    PrivateSymbol(
        "pathlib._local.PosixPath",
        "the name under which Python 3.13 pickles the folder in the metadata; others cannot import it",
        PYTHON_VERSIONS,
        "metadata that names another class is refused as damaged",
    ),
)


@dataclass(frozen=True)
class StoredChunk:
    """A part of a tensor, all of it as a rule.

    Attributes:
        offsets: Where in the tensor it begins.
        file: The name of the file that it is in.
        start: The position of its first byte.
        length: Its length in bytes.
    """

    offsets: tuple[int, ...]
    file: str
    start: int
    length: int


@dataclass(frozen=True)
class StoredEntry:
    """A tensor of a checkpoint."""

    size: torch.Size
    dtype: torch.dtype
    chunks: tuple[StoredChunk, ...]


def read_metadata(folder: Path) -> dict[str, StoredEntry]:
    """The tensors of the checkpoint in `folder`, by name.

    Raises:
        pickle.UnpicklingError: The metadata names anything but the classes that metadata consists of.
    """
    metadata = _MetadataUnpickler(io.BytesIO((folder / METADATA).read_bytes())).load()
    if not isinstance(metadata, _STAND_INS["Metadata"]):
        raise pickle.UnpicklingError("it is not a checkpoint's metadata")
    chunks: dict[str, list[StoredChunk]] = {}
    for index, info in (metadata.storage_data or {}).items():
        chunk = StoredChunk(tuple(index.offset or ()), info.relative_path, info.offset, info.length)
        chunks.setdefault(index.fqn, []).append(chunk)
    return {
        name: StoredEntry(entry.size, entry.properties.dtype, tuple(chunks.get(name, ())))
        for name, entry in metadata.state_dict_metadata.items()
        if isinstance(entry, _STAND_INS["TensorStorageMetadata"])
    }


def read_tensors(folder: Path, entries: Mapping[str, StoredEntry], targets: Mapping[str, torch.Tensor]) -> None:
    """Copies tensors of the checkpoint in `folder` into `targets`, by name; `entries` is its metadata.

    Raises:
        ValueError: A target has another shape than its tensor, or the metadata does not say where all of it is.
    """
    for name, target in targets.items():
        entry = entries[name]
        if entry.size != target.shape:
            raise ValueError(f"{name} has shape {tuple(target.shape)}; the checkpoint has {tuple(entry.size)}")
        num_read = sum(_read_chunk(folder / chunk.file, chunk, target.detach()) for chunk in entry.chunks)
        if num_read != target.numel() or not entry.chunks:
            raise ValueError(f"{name} is not whole in the checkpoint: {num_read} of {target.numel()} values")


def _read_chunk(path: Path, chunk: StoredChunk, target: torch.Tensor) -> int:
    """Copies a chunk to its place in `target`; returns its number of values."""
    with path.open("rb") as file:
        file.seek(chunk.start)
        data = io.BytesIO(file.read(chunk.length))
    tensor: torch.Tensor = torch.load(data, map_location="cpu", weights_only=True)
    place = target[_slices(chunk.offsets, tensor.shape)] if chunk.offsets else target
    place.copy_(tensor)
    return tensor.numel()


def _slices(offsets: Iterable[int], sizes: Iterable[int]) -> tuple[slice, ...]:
    return tuple(slice(offset, offset + size) for offset, size in zip(offsets, sizes, strict=True))


class _Part:
    """Stands for an object of the metadata; has the attributes that DCP's own would have."""

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple):  # only TensorProperties, whose other fields are deprecated
            state = {"dtype": state[0]}
        self.__dict__.update(state)


_METADATA_CLASSES = (
    "Metadata",
    "MetadataIndex",
    "TensorStorageMetadata",
    "BytesStorageMetadata",
    "ChunkStorageMetadata",
    "TensorProperties",
    "StorageMeta",
)
_STAND_INS: dict[str, type[Any]] = {name: type(name, (_Part,), {}) for name in (*_METADATA_CLASSES, "_StorageInfo")}


class _MemoryFormat(enum.Enum):
    TORCH_CONTIGUOUS_FORMAT = 0
    TORCH_CHANNELS_LAST = 1
    TORCH_PRESERVE_FORMAT = 2


class _MetadataUnpickler(pickle.Unpickler):
    """An unpickler for the few classes that DCP's metadata consists of."""

    _REPLACED: ClassVar[dict[tuple[str, str], type[Any]]] = {
        **{("torch.distributed.checkpoint.metadata", name): _STAND_INS[name] for name in _METADATA_CLASSES},
        ("torch.distributed.checkpoint.metadata", "_MEM_FORMAT_ENCODING"): _MemoryFormat,
        ("torch.distributed.checkpoint.filesystem", "_StorageInfo"): _STAND_INS["_StorageInfo"],
        ("pathlib", "PosixPath"): PurePosixPath,
        ("pathlib._local", "PosixPath"): PurePosixPath,
    }
    _ALLOWED = frozenset(
        {
            ("torch", "Size"),
            ("torch", "device"),
            ("torch.serialization", "_get_layout"),
            ("collections", "OrderedDict"),
        }
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("builtins", "getattr"):
            return _memory_format
        if (module, name) in self._REPLACED:
            return self._REPLACED[module, name]
        is_dtype = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if is_dtype or (module, name) in self._ALLOWED:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"its metadata names {module}.{name}, which does not belong in metadata")


def _memory_format(kind: Any, name: str) -> Any:
    """A member of the metadata's enum; stands for `getattr`, which must not reach anything else."""
    if kind is not _MemoryFormat or name not in _MemoryFormat.__members__:
        raise pickle.UnpicklingError(f"its metadata uses {name} of {kind}, which does not belong in metadata")
    return _MemoryFormat[name]
