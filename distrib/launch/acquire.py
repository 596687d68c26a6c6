"""Which folder a run gets: a new one, or that of a run to go on with."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from distrib.errors import JobError
from distrib.job.reader import Job
from distrib.runs.checkpoints import CheckpointFolder, list_checkpoints
from distrib.runs.layout import RunLayout, new_run_id
from distrib.runs.lease import Lease
from distrib.runs.record import Run
from distrib.runs.storage.local import LocalStorage
from distrib.runs.storage.location import as_folder, is_url, join

_FREE = {"data": ("loader_workers", "eval_batch_size"), "train": ("eval_every", "log_every")}
"""Fields that may differ between the job of a run and the job that goes on with it."""
_COMPARED = ("model", "data", "loss", "step", "optimizer", "schedule", "train", "ddp")
_LENGTH = ("train.epochs", "train.steps")


@dataclass(frozen=True)
class AcquiredRun:
    """A run's folder, held by this process.

    Attributes:
        run: The run.
        lease: The hold on it; None where the run has finished and there is nothing to do.
        attempt: The first attempt that has not been made.
        is_new: Whether there was no such run before.
    """

    run: Run
    lease: Lease | None
    attempt: int
    is_new: bool


def acquire_run(
    job: Job,
    run_id: str | None,
    num_steps: int,
    *,
    is_fresh: bool,
    is_extended: bool,
    check_start: Callable[[], None] = lambda: None,
) -> AcquiredRun:
    """Creates a run's folder, or takes that of an unfinished run, or finds that the run has finished.

    Args:
        job: The job.
        run_id: The run's id; None for a new one.
        num_steps: The optimizer steps that the job asks for.
        is_fresh: Whether a run that exists is left alone and another begun beside it, as ID-2.
        is_extended: Whether a finished run goes on if the job now asks for more steps.
        check_start: Called if the run will begin with its first step; raises what speaks against that.

    Raises:
        JobError: The runs folder cannot be written, or the run was made by another job.
        LaunchError: Another process holds the run.
    """
    if is_url(job.spec.storage):
        return _claim_in_store(job, run_id, num_steps, is_fresh, is_extended, check_start)
    root = as_folder(job.spec.storage).absolute()
    LocalStorage(root).check_writable()
    folder = root / (run_id or new_run_id(job.name, datetime.now()))
    if is_fresh:
        folder = folder.with_name(_unused(folder.name, lambda name: (root / name).exists()))
    folder.mkdir(parents=True, exist_ok=True)
    run = Run(folder)
    if _is_done(run, num_steps if is_extended else 0):
        _check_same_job(job, folder, is_extended)
        return AcquiredRun(run, None, attempt=0, is_new=False)
    lease = Lease.acquire(folder)
    try:
        return _take_up(job, run, lease, num_steps, is_extended, check_start)
    except BaseException:
        lease.release()
        with contextlib.suppress(OSError):
            folder.rmdir()  # which goes only if it is empty: where there was no such run
        raise


def _claim_in_store(
    job: Job, run_id: str | None, num_steps: int, is_fresh: bool, is_extended: bool, check_start: Callable[[], None]
) -> AcquiredRun:
    """The same on an object store: the lease comes first, then the mirror is made what the store has."""
    from distrib.runs.storage.object_store import ObjectStorage
    from distrib.runs.storage.run_store import RunStore
    from distrib.runs.storage.store_lease import StoreLease

    runs = ObjectStorage(job.spec.storage)
    runs.check_writable()
    name = run_id or new_run_id(job.name, datetime.now())
    if is_fresh:
        name = _unused(name, lambda name: bool(runs.list(name)))
    store = RunStore.at(join(runs.url, name))
    run = Run(store.folder, store)
    lease = StoreLease.acquire_in(store.storage, store.folder)
    try:
        store.pull()
        store.mark_launcher(lease.token)
        if _is_done(run, num_steps if is_extended else 0):
            _check_same_job(job, run.folder, is_extended)
            lease.release()
            return AcquiredRun(run, None, attempt=0, is_new=False)
        return _take_up(job, run, lease, num_steps, is_extended, check_start)
    except BaseException:
        lease.release()
        raise


def _take_up(
    job: Job, run: Run, lease: Lease, num_steps: int, is_extended: bool, check_start: Callable[[], None]
) -> AcquiredRun:
    """A run that this process holds: a new one, or one to go on with."""
    if not run.layout.record_file.exists():
        check_start()
        write_job(run, job)
        return AcquiredRun(run, lease, attempt=0, is_new=True)
    _check_same_job(job, run.folder, is_extended)
    _check_length(run, num_steps)
    if not committed(run):
        check_start()
    return AcquiredRun(run, lease, attempt=int(run.record.get("attempt") or 0) + 1, is_new=False)


def committed(run: Run) -> list[CheckpointFolder]:
    """The committed checkpoints of a run, newest first, wherever it is kept."""
    return list_checkpoints(run.layout.checkpoints) if run.store is None else run.store.checkpoints.list()


def _unused(name: str, is_used: Callable[[str], bool]) -> str:
    """`name`, or the first of NAME-2, NAME-3, … that is not there."""
    number, candidate = 2, name
    while is_used(candidate):
        candidate = f"{name}-{number}"
        number += 1
    return candidate


def write_job(run: Run, job: Job) -> None:
    """Writes a run's job.yaml."""
    file = run.layout.job_file
    LocalStorage(run.folder).put(file.name, job.text.encode())
    if run.store is not None:
        run.store.publish(file)


def _is_done(run: Run, num_steps: int) -> bool:
    """Whether a run is there and finished, and is not to go on to `num_steps`."""
    if not run.layout.record_file.exists() or run.status != "finished":
        return False
    return num_steps <= int((run.record.get("schedule") or {}).get("total_steps") or 0)


def _check_length(run: Run, num_steps: int) -> None:
    """Refuses a job that would end before where the run already is."""
    checkpoints = committed(run)
    if checkpoints and checkpoints[0].step > num_steps:
        raise JobError(
            f"run {run.id} has a checkpoint of step {checkpoints[0].step}, but the job now ends at step {num_steps}; "
            "ask for more, or use --fresh to begin a new run beside it"
        )


def _check_same_job(job: Job, folder: Path, is_extended: bool) -> None:
    """Refuses a job that would train something else than the run's."""
    before, now = _compared(Job.load(RunLayout(folder).job_file)), _compared(job)
    ignored = _LENGTH if is_extended else ()
    differing = [
        f"{field}: {before.get(field)!r} then, {now.get(field)!r} now"
        for field in sorted(before.keys() | now.keys())
        if before.get(field) != now.get(field) and field not in ignored
    ]
    if differing:
        raise JobError(
            f"run {folder.name} was made by another job; what differs:\n  " + "\n  ".join(differing) + "\n"
            "use the same job, --extend to go on beyond its end, or --fresh to begin a new run beside it"
        )


def _compared(job: Job) -> dict[str, Any]:
    """What must be equal, by dotted field."""
    spec = job.spec.model_dump()
    found: dict[str, Any] = {}
    for section in _COMPARED:
        value = spec[section]
        if section in ("data", "train", "ddp"):
            found.update({f"{section}.{key}": item for key, item in value.items() if key not in _FREE.get(section, ())})
        elif section == "model":
            found["model"] = {key: item for key, item in value.items() if key != "weights"}
            found["model.weights"] = value["weights"]
        else:
            found[section] = value
    return found
