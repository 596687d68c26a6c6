"""From what a user typed to the runs that it names, wherever they are kept."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from distrib.errors import JobError
from distrib.runs.record import Run, list_runs, newest_first
from distrib.runs.storage.location import as_folder, is_url, join, problem_of, split

_NUM_CONNECTIONS = 16


class NoRunError(JobError):
    """There is no such run."""


def find_run(text: str, runs_location: str | Path = "runs") -> Run:
    """The run that `text` names: a folder, the URL of a run on an object store, or an id in `runs_location`.

    A run on an object store comes with a local copy of its record, its job and its events; its weights are fetched
    when `Run.weights` or `Run.best_weights` is asked for them.

    Raises:
        NoRunError: There is no such run.
        JobError: The URL is wrong.
        StorageError: The store refuses or cannot be reached.
    """
    location = os.fspath(runs_location)
    if "://" in text:
        if (problem := problem_of(text)) is not None:
            raise JobError(problem, field="RUN")
        return _viewed(text) if is_url(text) else _in_folder(text, as_folder(text), None)
    names_a_path = os.sep in text or text in (os.curdir, os.pardir)
    if is_url(location) and not names_a_path:
        return _viewed(join(location, text))
    return _in_folder(text, as_folder(text), None if names_a_path else as_folder(location))


def find_runs(location: str | Path) -> list[Run]:
    """The runs that a folder or an object store's URL holds, newest first; unreadable ones come last.

    Raises:
        JobError: The URL is wrong.
        StorageError: The store refuses or cannot be reached.
    """
    location = os.fspath(location)
    if (problem := problem_of(location)) is not None:
        raise JobError(problem, field="--runs-dir")
    if not is_url(location):
        return list_runs(as_folder(location))
    from distrib.runs.storage.object_store import START_PATIENCE_SECONDS, ObjectStorage

    names = ObjectStorage(location, START_PATIENCE_SECONDS).folders()
    with ThreadPoolExecutor(_NUM_CONNECTIONS) as pool:
        found = pool.map(_view, [join(location, name) for name in names])
        return newest_first(run for run in found if run is not None)


def _in_folder(text: str, path: Path, runs_folder: Path | None) -> Run:
    for folder in [path] if runs_folder is None else [runs_folder / text, path]:
        if (folder / "run.json").exists():
            return Run(folder)
    if path.is_dir():
        raise NoRunError(f"{text} is a folder but not of a run: it has no run.json", field="RUN")
    if runs_folder is None:
        raise _no_run(text, "", [])
    raise _no_run(text, f" in {runs_folder}", (file.parent.name for file in runs_folder.glob("*/run.json")))


def _viewed(url: str) -> Run:
    run = _view(url)
    if run is not None:
        return run
    from distrib.runs.storage.object_store import START_PATIENCE_SECONDS, ObjectStorage

    parent, run_id = split(url)
    raise _no_run(run_id, f" in {parent}", ObjectStorage(parent, START_PATIENCE_SECONDS).folders())


def _view(url: str) -> Run | None:
    """A local copy of a run on an object store, as it is now; None where there is none."""
    from distrib.runs.storage.mirror import mirror_folder
    from distrib.runs.storage.object_store import START_PATIENCE_SECONDS, ObjectStorage
    from distrib.runs.storage.run_store import RunStore

    storage = ObjectStorage(url, START_PATIENCE_SECONDS)
    try:
        record = storage.get_json("run.json")
    except FileNotFoundError:
        return None
    store = RunStore(storage, mirror_folder(url, "view"))
    store.view(record)
    return Run(store.folder, store)


def _no_run(text: str, where: str, ids: Iterable[str]) -> NoRunError:
    name = text.rstrip("/").rpartition("/")[2]
    match = difflib.get_close_matches(name, list(ids), n=1)
    advice = f"did you mean '{match[0]}'?" if match else "distrib list shows the runs; a run's folder can be named too"
    return NoRunError(f"there is no run '{text}'{where}; {advice}", field="RUN")
