"""Writes files as torch.distributed.checkpoint (DCP) does, whose import would cost each rank 1.4 s of CPU time.

The format is DCP's: `dcp.load` reads such a checkpoint. A rank's tensors are in one file, each as `torch.save` writes
it; the pickled metadata has the shape, the type and the position of each. With DCP come DTensor, FSDP and SymPy.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import IO, Any

import torch

from distrib.compat.symbols import TORCH_VERSIONS, PrivateSymbol

METADATA = ".metadata"
"""The file that describes the tensors."""

SYMBOLS = (
    PrivateSymbol(
        "torch.distributed.checkpoint.metadata: classes and fields of the pickled metadata, version 1.0.0",
        "checkpoints are written in DCP's format without importing DCP",
        TORCH_VERSIONS,
        "none: DCP of another version could not read our checkpoints, but we can",
    ),
    PrivateSymbol(
        "torch.distributed.checkpoint.filesystem._metadata_fn",
        "the name of the metadata file, which is part of a checkpoint's manifest",
        TORCH_VERSIONS,
        "none: as above",
    ),
    PrivateSymbol(
        "torch.distributed.checkpoint: names of a rank's files, __RANK_*.distcp",
        "tools that know DCP find a rank's file by its name",
        TORCH_VERSIONS,
        "none is needed: the metadata names the files",
    ),
)

_METADATA_MODULE = "torch.distributed.checkpoint.metadata"
_CONTIGUOUS = 0


@dataclass(frozen=True)
class WrittenTensor:
    """A tensor in a file.

    Attributes:
        name: Its name in the checkpoint.
        size: Its shape.
        dtype: Its type.
        file: The name of the file.
        start: The position of its first byte.
        length: Its length in bytes.
    """

    name: str
    size: tuple[int, ...]
    dtype: torch.dtype
    file: str
    start: int
    length: int


def tensor_file(rank: int) -> str:
    """The name of the file with the tensors of `rank`."""
    return f"__{rank}_0.distcp"


def write_tensors(stream: IO[bytes], file: str, tensors: Mapping[str, torch.Tensor]) -> list[WrittenTensor]:
    """Writes CPU tensors to a new file, which `stream` is open for; `file` is its name."""
    written = []
    for name, tensor in tensors.items():
        start = stream.tell()
        torch.save(tensor, stream)
        written.append(WrittenTensor(name, tuple(tensor.shape), tensor.dtype, file, start, stream.tell() - start))
    return written


def dump_metadata(tensors: Iterable[WrittenTensor]) -> bytes:
    """The content of the metadata file of a checkpoint with these tensors, from the files of all ranks."""
    tensors = sorted(tensors, key=lambda tensor: tensor.name)
    metadata = _Object(
        _in_metadata("Metadata"),
        {
            "state_dict_metadata": {tensor.name: _describe(tensor) for tensor in tensors},
            "planner_data": {tensor.name: (tensor.name,) for tensor in tensors},
            "storage_data": _Pairs([(_index(tensor), _position(tensor)) for tensor in tensors]),
            "storage_meta": None,
            "version": "1.0.0",
        },
    )
    return pickle.PROTO + b"\x02" + _pickle(metadata) + pickle.STOP


@dataclass(frozen=True)
class _Global:
    """Something that a pickle names, without importing it."""

    module: str
    name: str


@dataclass(frozen=True)
class _Call:
    """The result of a call."""

    function: _Global
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class _Object:
    """An object that is created without a call, and then given its state."""

    type: _Global
    state: Any


@dataclass(frozen=True)
class _Pairs:
    """A dict whose keys cannot be hashed here."""

    items: list[tuple[Any, Any]]


def _in_metadata(name: str) -> _Global:
    return _Global(_METADATA_MODULE, name)


def _describe(tensor: WrittenTensor) -> _Object:
    layout = _Call(_Global("torch.serialization", "_get_layout"), ("torch.strided",))
    memory_format = _Call(_in_metadata("_MEM_FORMAT_ENCODING"), (_CONTIGUOUS,))
    dtype = _Global("torch", str(tensor.dtype).removeprefix("torch."))
    properties = _Object(_in_metadata("TensorProperties"), (dtype, layout, False, memory_format, False))
    chunk = {"offsets": _size([0] * len(tensor.size)), "sizes": _size(tensor.size)}
    chunks = [_Object(_in_metadata("ChunkStorageMetadata"), chunk)]
    state = {"properties": properties, "size": _size(tensor.size), "chunks": chunks}
    return _Object(_in_metadata("TensorStorageMetadata"), state)


def _index(tensor: WrittenTensor) -> _Object:
    state = {"fqn": tensor.name, "offset": _size([0] * len(tensor.size)), "index": 0}
    return _Object(_in_metadata("MetadataIndex"), state)


def _position(tensor: WrittenTensor) -> _Object:
    state = {"relative_path": tensor.file, "offset": tensor.start, "length": tensor.length}
    return _Object(
        _Global("torch.distributed.checkpoint.filesystem", "_StorageInfo"), {**state, "transform_descriptors": None}
    )


def _size(sizes: Iterable[int]) -> _Call:
    return _Call(_Global("torch", "Size"), (tuple(sizes),))


def _pickle(value: Any) -> bytes:
    """The operations that put `value` on the stack of an unpickler; constants are those of the module pickle."""
    match value:
        case _Global():
            made = pickle.GLOBAL + f"{value.module}\n{value.name}\n".encode()
        case _Call():
            made = _pickle(value.function) + _pickle(value.arguments) + pickle.REDUCE
        case _Object():
            made = _pickle(value.type) + pickle.EMPTY_TUPLE + pickle.NEWOBJ + _pickle(value.state) + pickle.BUILD
        case _Pairs():
            pairs = b"".join(_pickle(key) + _pickle(item) for key, item in value.items)
            made = pickle.EMPTY_DICT + pickle.MARK + pairs + pickle.SETITEMS
        case dict():
            made = _pickle(_Pairs(list(value.items())))
        case list():
            made = pickle.EMPTY_LIST + pickle.MARK + b"".join(map(_pickle, value)) + pickle.APPENDS
        case tuple():
            made = pickle.MARK + b"".join(map(_pickle, value)) + pickle.TUPLE
        case _:
            made = _pickle_scalar(value)
    return made


def _pickle_scalar(value: str | int | bool | None) -> bytes:
    if value is None:
        return pickle.NONE
    if isinstance(value, bool):
        return pickle.NEWTRUE if value else pickle.NEWFALSE
    if isinstance(value, int):
        return pickle.LONG + f"{value}L\n".encode()
    text = value.encode("utf-8", "surrogatepass")
    return pickle.BINUNICODE + struct.pack("<I", len(text)) + text
