"""Files of torch.distributed.checkpoint (DCP): their names, and a hand in how they are written."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distrib.compat.symbols import PrivateSymbol

if TYPE_CHECKING:
    from torch.distributed.checkpoint import FileSystemWriter

METADATA = ".metadata"
"""The file in which DCP describes the tensors."""

SYMBOLS = (
    PrivateSymbol(
        "torch.distributed.checkpoint.FileSystemWriter.fs.create_stream",
        "files are hashed while they are written, so that they are not read again",
        ("2.13",),
        "files are hashed by reading them again",
    ),
    PrivateSymbol(
        "torch.distributed.checkpoint.filesystem._metadata_fn",
        "the name of DCP's own file, which is part of a checkpoint's manifest",
        ("2.13",),
        "none: a checkpoint without it is damaged",
    ),
    PrivateSymbol(
        "torch.distributed.checkpoint: names of a rank's files, __RANK_*.distcp",
        "each rank lists its files in the manifest",
        ("2.13",),
        "none: a file that is not listed makes the checkpoint damaged",
    ),
)

OpenTensorFile = Callable[[Path], AbstractContextManager[Any]]


def tensor_files(folder: Path, rank: int) -> list[str]:
    """The names of the files that DCP has written for `rank`."""
    return [path.name for path in folder.glob(f"__{rank}_*.distcp")]


def open_tensor_files_with(writer: FileSystemWriter, open_file: OpenTensorFile) -> None:
    """Has `writer` open its files of tensors by `open_file`; other files are opened as before."""
    create_other = getattr(getattr(writer, "fs", None), "create_stream", None)
    if create_other is None:
        return

    def create_stream(path: str | os.PathLike[str], mode: str) -> AbstractContextManager[Any]:
        if mode != "wb" or not str(path).endswith(".distcp"):
            return create_other(path, mode)  # type: ignore[no-any-return]
        return open_file(Path(path))

    writer.fs.create_stream = create_stream  # type: ignore[method-assign,assignment]
