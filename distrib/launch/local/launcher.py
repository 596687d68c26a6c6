"""The local launcher: one process per rank on this machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self, TypeVar

from distrib.errors import JobError
from distrib.job.plan import Device, LaunchDescription, Request
from distrib.job.script import AnyJob
from distrib.launch.devices import choose_device, fit_workers, usable_cpus
from distrib.launch.process.fork_safety import ForkCheck, torch_ready_to_fork
from distrib.runs.storage.local import LocalStorage
from distrib.runs.storage.location import as_folder, is_url

if TYPE_CHECKING:
    from distrib.launch.launcher import Attempt, AttemptResult, Placement
    from distrib.observe.observer import Observer

Result = TypeVar("Result")


class LocalLauncher:
    """Starts each rank as a process on this machine.

    Ranks are forked from this process, which has imported torch and the job's modules and built its datasets, if that
    is safe; otherwise each is a new interpreter.

    Args:
        job: The job.
    """

    def __init__(self, job: AnyJob) -> None:
        self._job = job
        self._context = ExitStack()
        self._fork_check: ForkCheck | None = None
        self._can_fork = False
        self._num_gpus = 0
        self._has_reported = False
        self._device: Device = "cpu"

    def __enter__(self) -> Self:
        self._fork_check = self._context.enter_context(torch_ready_to_fork())
        try:
            import torch

            self._num_gpus = torch.cuda.device_count()
            self._device = choose_device(self._job, self._num_gpus)  # fails before anything of the job is imported
        except BaseException:
            self._context.close()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self._context.close()

    @property
    def observers(self) -> Sequence[Observer]:
        """None: this machine exports no metrics."""
        return ()

    def prepare(self, work: Callable[[], Result]) -> Result:
        """Does the work, and finds out whether this process can still be forked; this machine needs no connection."""
        result = work()
        self._can_fork = self._fork_check is not None and self._fork_check.can_fork
        return result

    def choose_device(self, job: AnyJob) -> Device:
        """The device that was chosen when the launcher was entered."""
        return self._device

    def describe(self, request: Request) -> LaunchDescription:
        """Local processes need no settings; their number does not change."""
        notes = [self._shared_cpus(request, fit_workers(request, self._num_gpus)), self._storage_problem()]
        found = tuple(note for note in notes if note is not None)
        return LaunchDescription("local process", is_elastic=False, notes=found)

    def find_room(
        self, request: Request, notice: Callable[[str], None], is_stopping: Callable[[], bool]
    ) -> Placement | None:
        """As many workers as fit on this machine, at least the fewest that the job allows."""
        from distrib.launch.launcher import Placement

        return Placement(fit_workers(request, self._num_gpus))

    def run(self, attempt: Attempt) -> AttemptResult:
        """Runs an attempt to its end."""
        from distrib.launch.local.attempt import LocalAttempt

        self._report_shared_cpus(attempt)
        return LocalAttempt(attempt, self._can_fork).run()

    def _report_shared_cpus(self, attempt: Attempt) -> None:
        """Reports, once, that there are fewer CPUs than the ranks' threads."""
        note = self._shared_cpus(attempt.config.request, attempt.world_size)
        if note is not None and not self._has_reported:
            self._has_reported = True
            attempt.monitor.notice(note)

    @staticmethod
    def _shared_cpus(request: Request, world_size: int) -> str | None:
        num_threads, num_cpus = world_size * request.cpus_per_worker, usable_cpus()
        if request.device != "cpu" or num_threads <= num_cpus:
            return None
        return f"{num_threads} threads on {num_cpus} CPUs: the ranks will wait for each other"

    def _storage_problem(self) -> str | None:
        """Why this machine cannot write the folder of runs; an object store is not asked before a run starts."""
        location = self._job.spec.storage
        if is_url(location):
            return None
        try:
            LocalStorage(as_folder(location).absolute()).check_writable(is_kept=False)
        except JobError as error:
            return f"a run on this machine would be refused: {error}"
        return None
