"""Output files that are written atomically: complete under their name, or not at all."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from distrib.errors import InferenceError, JobError


def check_new_file(out: Path, overwrites: bool) -> None:
    """Checks that an output file can be created.

    Raises:
        JobError: The file exists and must not be overwritten, or its folder does not exist.
    """
    if out.is_dir():
        raise JobError(f"{out} is a folder; name a file in it", field="`out`")
    if out.exists() and not overwrites:
        raise JobError(f"{out} exists; `force` overwrites it", field="`out`")
    if not out.parent.is_dir():
        raise JobError(f"there is no folder {out.parent}; create it first", field="`out`")


@contextlib.contextmanager
def folder_beside(out: Path) -> Iterator[Path]:
    """A hidden temporary folder beside an output file, deleted afterwards.

    Raises:
        JobError: The folder cannot be created.
        InferenceError: Writing failed later.
    """
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise JobError(f"nothing can be written to {out.parent}: {error.strerror}", field="`out`") from None
    try:
        yield folder
    except OSError as error:
        raise InferenceError(f"{out} could not be written: {error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
