"""Reading DCP's pickled description of a checkpoint without running what else a pickle can hold."""

from __future__ import annotations

import contextlib
import io
import pickle
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint import metadata as dcp_metadata
from torch.distributed.checkpoint.metadata import Metadata

from distrib.compat.symbols import PrivateSymbol
from distrib.compat.torch_checkpoint import METADATA

SYMBOLS = (
    PrivateSymbol(
        "torch.distributed.checkpoint.metadata._MEM_FORMAT_ENCODING",
        "the one enum in the metadata, which some Pythons, such as 3.11.2, pickle as a call of getattr",
        ("2.13",),
        "metadata that was pickled so is refused as damaged",
    ),
    PrivateSymbol(
        "torch.distributed.checkpoint.filesystem._StorageInfo",
        "a class in the metadata: which file a tensor lies in",
        ("2.13",),
        "metadata that names another class is refused as damaged",
    ),
    PrivateSymbol(
        "torch.serialization._get_layout",
        "a function in the metadata: the layout of a tensor, such as strided",
        ("2.13",),
        "metadata that names another function is refused as damaged",
    ),
)


class SafeReader(dcp.FileSystemReader):
    """Reads a checkpoint's metadata by allowing only the classes that metadata consists of."""

    def read_metadata(self, *_: Any, **__: Any) -> Metadata:
        """The metadata.

        Raises:
            pickle.UnpicklingError: It names anything but the classes that metadata consists of.
        """
        data = (Path(self.path) / METADATA).read_bytes()
        metadata: Metadata = _MetadataUnpickler(io.BytesIO(data)).load()
        if not isinstance(metadata, Metadata):
            raise pickle.UnpicklingError("it is not a checkpoint's metadata")
        if getattr(metadata, "storage_meta", None) is None:
            with contextlib.suppress(AttributeError):
                metadata.storage_meta = None
        return metadata


class _MetadataUnpickler(pickle.Unpickler):
    """An unpickler for the few classes that DCP's metadata consists of."""

    _ALLOWED = frozenset(
        {
            ("torch", "Size"),
            ("torch", "device"),
            ("torch.serialization", "_get_layout"),
            ("torch.distributed.checkpoint.metadata", "Metadata"),
            ("torch.distributed.checkpoint.metadata", "MetadataIndex"),
            ("torch.distributed.checkpoint.metadata", "TensorStorageMetadata"),
            ("torch.distributed.checkpoint.metadata", "BytesStorageMetadata"),
            ("torch.distributed.checkpoint.metadata", "ChunkStorageMetadata"),
            ("torch.distributed.checkpoint.metadata", "TensorProperties"),
            ("torch.distributed.checkpoint.metadata", "_MEM_FORMAT_ENCODING"),
            ("torch.distributed.checkpoint.metadata", "StorageMeta"),
            ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
            ("pathlib", "PosixPath"),
            ("collections", "OrderedDict"),
        }
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("builtins", "getattr"):
            return _memory_format
        is_dtype = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if is_dtype or (module, name) in self._ALLOWED:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"its metadata names {module}.{name}, which does not belong in metadata")


def _memory_format(kind: Any, name: str) -> Any:
    """A member of the metadata's enum; stands for `getattr`, which must not reach anything else."""
    encoding: Any = getattr(dcp_metadata, "_MEM_FORMAT_ENCODING", None)
    if encoding is None or kind is not encoding or name not in encoding.__members__:
        raise pickle.UnpicklingError(f"its metadata uses {name} of {kind}, which does not belong in metadata")
    return encoding[name]
