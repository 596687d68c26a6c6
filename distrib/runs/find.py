"""From what a user typed to the runs that it names, wherever they are kept."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from distrib.errors import JobError
from distrib.runs.run import Run, newest_first
from distrib.runs.storage.location import join, problem_of, split
from distrib.runs.storage.open import open_storage

Result = TypeVar("Result")

_NUM_CONNECTIONS = 16


class NoRunError(JobError):
    """There is no such run."""


def find_run(text: str, runs_location: str | Path = "runs") -> Run:
    """The run that `text` names: a folder, the URL of a run on an object store, or an id in `runs_location`.

    Raises:
        NoRunError: There is no such run.
        JobError: The URL is wrong.
        StorageError: The store refuses or cannot be reached.
    """
    location = os.fspath(runs_location)
    if "://" in text and (problem := problem_of(text)) is not None:
        raise JobError(problem, field="RUN")
    is_location = "://" in text or os.sep in text or text in (os.curdir, os.pardir)
    for candidate in [text] if is_location else [join(location, text), text]:
        run = Run(candidate)
        if run.exists:
            return run
    if _folders(text):
        raise NoRunError(f"{text} is a folder but not of a run: it has no run.json", field="RUN")
    parent, name = split(text) if is_location else (location, text)
    match = difflib.get_close_matches(name, _folders(parent), n=1)
    advice = f"did you mean '{match[0]}'?" if match else "distrib list shows the runs; a run's folder can be named too"
    raise NoRunError(f"there is no run '{name}' in {parent}; {advice}", field="RUN")


def find_runs(location: str | Path) -> list[Run]:
    """The runs that a folder or an object store's URL holds, newest first; unreadable ones come last.

    Only records are read.

    Raises:
        JobError: The URL is wrong.
        StorageError: The store refuses or cannot be reached.
    """
    location = os.fspath(location)
    if (problem := problem_of(location)) is not None:
        raise JobError(problem, field="--runs-dir")
    runs = [Run(join(location, name)) for name in _folders(location)]
    are_there = for_each(runs, lambda run: run.exists)
    return newest_first(run for run, is_there in zip(runs, are_there, strict=True) if is_there)


def for_each(runs: Sequence[Run], function: Callable[[Run], Result]) -> list[Result]:
    """The results of a function for all runs; several at a time, since each may wait for an object store."""
    with ThreadPoolExecutor(_NUM_CONNECTIONS) as pool:
        return list(pool.map(function, runs))


def _folders(location: str) -> list[str]:
    return open_storage(location, is_interactive=True).folders()
