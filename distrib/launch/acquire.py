"""Acquiring a run: a new one, or an unfinished one to resume."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from distrib.errors import JobError
from distrib.job.reader import Job
from distrib.job.resume_identity import differing_fields
from distrib.job.script import AnyJob, ScriptJob, load_any_job
from distrib.job.spec.section import Section
from distrib.runs.layout import new_run_id
from distrib.runs.lease import Lease
from distrib.runs.run import Run
from distrib.runs.storage.location import join
from distrib.runs.storage.open import open_storage

_LENGTH = ("train.epochs", "train.steps")
_SCHEDULE = "schedule"


@dataclass(frozen=True)
class AcquiredRun:
    """A run that this process may train.

    Attributes:
        run: The run.
        lease: The lease; None if the run has finished and there is nothing to do.
        attempt: The number of the next attempt.
        is_new: Whether the run did not exist before.
    """

    run: Run
    lease: Lease | None
    attempt: int
    is_new: bool


@dataclass(frozen=True)
class RunRequest:
    """Which run to acquire, and for what.

    Attributes:
        job: The job.
        run_id: The run's id; None for a new one.
        num_steps: The optimizer steps that the job asks for; None for a script, whose steps are not known.
        is_fresh: Whether an existing run is left alone and a new one created beside it, as ID-2.
        is_extended: Whether a finished run is resumed if the job now asks for more steps.
    """

    job: AnyJob
    run_id: str | None
    num_steps: int | None
    is_fresh: bool = False
    is_extended: bool = False


def acquire_run(
    request: RunRequest,
    check_start: Callable[[], None] = lambda: None,
    check_extension: Callable[[], None] = lambda: None,
) -> AcquiredRun:
    """Creates a run, or acquires an unfinished one, or finds that it has finished.

    Args:
        request: Which run.
        check_start: Called if the run will start with its first step; raises if it cannot.
        check_extension: Called if the run has checkpoints of a shorter training; raises if they cannot be continued.

    Raises:
        JobError: The runs folder cannot be written, or the run was made by another job.
        LaunchError: Another process holds the run.
    """
    storage = open_storage(request.job.spec.storage)
    storage.check_writable()
    run_id = request.run_id or new_run_id(request.job.name, datetime.now())
    if request.is_fresh:
        run_id = _unused(run_id, lambda name: bool(storage.list(name)))
    location = join(str(storage.location), run_id)
    seen = Run(location)
    if _is_done(seen, request):
        _check_same_job(seen, request)
        return AcquiredRun(seen, None, attempt=0, is_new=False)
    if not seen.exists:
        check_start()
    run = Run(location, is_training=True)
    lease = run.storage.acquire()
    try:
        run.storage.prepare(lease)
        if not _is_done(run, request):  # another launcher may have finished it meanwhile
            return _start_or_resume(run, lease, request, check_start, check_extension)
        lease.release()
        return AcquiredRun(run, None, attempt=0, is_new=False)
    except BaseException:
        lease.release()
        run.storage.remove_if_empty()
        raise


def finished_notice(run: Run, request: RunRequest) -> str:
    """Why a finished run is left alone, and what trains it further."""
    extend = ""
    if isinstance(request.job, Job):
        spec = Job.load(run.job_file).spec
        field, length = ("epochs", spec.train.epochs) if spec.train.steps is None else ("steps", spec.train.steps)
        more = f"set train.{field} above {length}"
        extend = f"to extend it, {more}, and " if request.is_extended else f"`extend` continues it if you {more}, "
        extend = f"it has {length} {field}; {extend}"
    return f"{run.id} has finished already; {extend}`fresh` starts a new run beside it"


def _start_or_resume(
    run: Run,
    lease: Lease,
    request: RunRequest,
    check_start: Callable[[], None],
    check_extension: Callable[[], None],
) -> AcquiredRun:
    if not run.exists:
        run.write_job(request.job.text)
        return AcquiredRun(run, lease, attempt=0, is_new=True)
    _check_same_job(run, request)
    checkpoints = run.checkpoints.list()
    if not checkpoints:
        check_start()
    elif request.num_steps is not None and checkpoints[0].step > request.num_steps:
        raise JobError(
            f"run {run.id} has a checkpoint of step {checkpoints[0].step}, but the job now ends at step "
            f"{request.num_steps}; ask for more, or use `fresh` to start a new run beside it"
        )
    elif request.num_steps is not None and request.num_steps != _planned_steps(run):
        check_extension()
    return AcquiredRun(run, lease, attempt=int(run.record.get("attempt") or 0) + 1, is_new=False)


def _unused(name: str, is_used: Callable[[str], bool]) -> str:
    """`name`, or the first of NAME-2, NAME-3, … that is not used."""
    candidates = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    return next(candidate for candidate in candidates if not is_used(candidate))


def _is_done(run: Run, request: RunRequest) -> bool:
    """Whether the run has finished and is not to be extended."""
    if not run.exists or run.status != "finished":
        return False
    return not request.is_extended or request.num_steps is None or request.num_steps <= _planned_steps(run)


def _planned_steps(run: Run) -> int:
    """The optimizer steps that the run was to make so far."""
    return int((run.record.get("schedule") or {}).get("total_steps") or 0)


def _check_same_job(run: Run, request: RunRequest) -> None:
    """Refuses a job that would train something else than the run's."""
    before = load_any_job(run.job_file).spec
    may_differ = _fields_of_extension(before, request.job.spec) if request.is_extended else ()
    differing = [
        f"{field}: {old!r} then, {new!r} now"
        for field, old, new in differing_fields(before, request.job.spec)
        if field not in may_differ
    ]
    if differing:
        advice = ", `extend` to train beyond its end,"
        if request.is_extended:
            advice = ", change no more than its length and the args of a schedule by steps or epochs to extend it,"
        elif isinstance(request.job, ScriptJob):
            advice = ""
        raise JobError(
            f"run {run.id} was made by another job; what differs:\n  " + "\n  ".join(differing) + "\n"
            f"use the same job{advice} or `fresh` to start a new run beside it"
        )


def _fields_of_extension(before: Section, now: Section) -> tuple[str, ...]:
    """The fields that may differ where a run is extended: its length, and with it the numbers of its schedule."""
    old, new = getattr(before, _SCHEDULE, None), getattr(now, _SCHEDULE, None)
    if old is None or new is None or (old.target, old.every) != (new.target, new.every) or new.every == "eval":
        return _LENGTH
    return (*_LENGTH, _SCHEDULE)
