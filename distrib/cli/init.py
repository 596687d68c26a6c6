"""`distrib init`: a job to start from."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated

import typer

from distrib.errors import JobError

_FILES = ("job.yaml", "first_model.py")


def init(
    folder: Annotated[
        str, typer.Argument(metavar="[DIR]", help="Where to write it; by default the working directory.")
    ] = ".",
) -> None:
    """Write a small job that trains as it is: its YAML file, and a module with its model and data."""
    target = Path(folder).expanduser()
    existing = [name for name in _FILES if (target / name).exists()]
    if existing:
        raise JobError(f"{target / existing[0]} exists already; nothing was written. Name another folder", field="DIR")
    source = resources.files("distrib.cli.starter")
    try:
        target.mkdir(parents=True, exist_ok=True)
        for name in _FILES:
            (target / name).write_text(source.joinpath(name).read_text(encoding="utf-8"), encoding="utf-8")
    except OSError as error:
        raise JobError(f"cannot write to {target}: {error.strerror}", field="DIR") from None
    job = target / "job.yaml"
    print(f"wrote  {job}, the job, and {target / 'first_model.py'}, its model and data")
    print(f"check  distrib plan {job} --try\ntrain  distrib run {job} --workers 2")
