"""The experiment: runs the job itself at each size, with the launcher that would train it."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from distrib.errors import DistribError, JobError, StoppedError
from distrib.job.launcher_names import LauncherName
from distrib.job.reader import Job
from distrib.observe.format import plural
from distrib.observe.observer import SilentObserver
from distrib.runs.provenance import collect_provenance
from distrib.scale.measurement import read_measurement
from distrib.scale.result import RESULT_FILE, ExperimentResult, Mode, Sample, read_result, write_result
from distrib.scale.summary import summarize

_SETTINGS = ("failures.max_restarts=0", "checkpoint.every=never", "checkpoint.best=null")


@dataclass(frozen=True)
class Design:
    """What an experiment measures.

    Attributes:
        workers: The sizes, ascending.
        mode: `strong` keeps the job's global batch, `weak` multiplies it by the number of workers.
        steps: Steps measured in each run.
        warmup_steps: Steps run before them.
        repeats: Runs at each size.
    """

    workers: tuple[int, ...]
    mode: Mode
    steps: int
    warmup_steps: int
    repeats: int

    def order(self) -> list[tuple[int, int]]:
        """(repeat, workers) of each run.

        Each repeat runs every size, alternately ascending and descending, so that a machine that drifts does not
        look like scaling.
        """
        return [
            (repeat, size)
            for repeat in range(self.repeats)
            for size in (self.workers if repeat % 2 == 0 else self.workers[::-1])
        ]


class _NoticeObserver(SilentObserver):
    """Forwards the launcher's notices, such as what it waits for, and nothing else."""

    def __init__(self, notice: Callable[[str], None]) -> None:
        self._notice = notice

    def notice(self, message: str) -> None:
        """Forwards the message."""
        self._notice(message)

    def waiting(self, reason: str) -> None:
        """Forwards the reason."""
        self._notice(reason)


@dataclass(frozen=True)
class Experiment:
    """An experiment and its folder.

    Attributes:
        job: The job to measure.
        design: What to measure.
        launcher: What starts the ranks.
        address: The Ray cluster, if any.
        folder: Where results and runs are written.
        notice: Receives progress messages.
    """

    job: Job
    design: Design
    launcher: LauncherName
    address: str | None
    folder: Path
    notice: Callable[[str], None]

    def check(self) -> None:
        """Checks that every size fits before anything starts.

        Raises:
            JobError: The job is wrong, or a size exceeds this machine or the dataset.
            LaunchError: A size exceeds the cluster.
        """
        from distrib.launch.start import check_room, plan

        largest = self._job_at(self.design.workers[-1])
        if self.address is not None:
            check_room(largest, self.launcher, self.address)
        else:
            facts = plan(largest, launcher=self.launcher).schedule
            if facts.train_samples < largest.spec.data.batch_size and self.design.mode == "weak":
                raise JobError(
                    f"weak scaling to {facts.world_size} workers needs batches of {largest.spec.data.batch_size}, but "
                    f"the dataset has {facts.train_samples} samples; use fewer workers or a smaller batch_size",
                    field="`workers`",
                )

    def run(self, *, is_resumed: bool) -> ExperimentResult:
        """Measures what is missing, writes scale.json after every run, and returns the result.

        Raises:
            JobError: The folder holds another experiment, or this one and `is_resumed` is False.
            StoppedError: A signal stopped the experiment; what was measured is kept.
        """
        result = self._begin(is_resumed)
        try:
            return self._measure_missing(result)
        except (StoppedError, KeyboardInterrupt):
            num_measured = len(read_result(self.folder).samples)
            raise StoppedError(
                f"stopped after {num_measured} of {len(self.design.order())} runs; the measurements are in "
                f"{self.folder / RESULT_FILE}; to continue, repeat the command with `out` {self.folder} `resume`"
            ) from None

    def _measure_missing(self, result: ExperimentResult) -> ExperimentResult:
        """Adds each run that the result lacks, and writes scale.json after it."""
        done = {(sample.repeat, sample.workers) for sample in result.samples}
        failed = {sample.workers for sample in result.samples if sample.error}
        order = self.design.order()
        for number, (repeat, size) in enumerate(order, start=1):
            if (repeat, size) in done or size in failed:
                continue
            self.notice(f"run {number} of {len(order)}: {plural(size, 'worker')}")
            sample = self._measure(repeat, size)
            if sample.error:
                failed.add(size)
                self.notice(f"{plural(size, 'worker')}: {sample.error}")
            samples = (*result.samples, sample)
            result = replace(result, samples=samples, sizes=summarize(samples, self.design.workers))
            write_result(self.folder, result)
        return result

    def _measure(self, repeat: int, size: int) -> Sample:
        from distrib.launch.options import RunOptions
        from distrib.launch.start import run
        from distrib.train.context import Measurement

        sample = Sample(workers=size, repeat=repeat, run_id=f"workers-{size}-repeat-{repeat}")
        try:
            options = RunOptions(
                launcher=self.launcher,
                address=self.address,
                run_id=sample.run_id,
                fresh=True,
                measurement=Measurement(self.design.steps, self.design.warmup_steps),
            )
            finished = run(self._job_at(size), options, observers=[_NoticeObserver(self.notice)])
            return replace(sample, measurement=read_measurement(finished.layout.measurement_file))
        except (StoppedError, JobError):
            raise
        except (DistribError, OSError) as error:
            return replace(sample, error=str(error))

    def _job_at(self, size: int) -> Job:
        """The job with this many workers and as many steps as the design needs."""
        from distrib.train.profiler import steps_needed

        steps = steps_needed(self.design.steps, self.design.warmup_steps)
        batch = self.job.spec.data.batch_size * (size if self.design.mode == "weak" else 1)
        return self.job.override([
            *_SETTINGS,
            "train.epochs=null",
            f"train.steps={steps}",
            f"data.batch_size={batch}",
            f"resources.workers={size}",
            f"storage={json.dumps(str(self.folder / 'runs'))}",
        ])  # fmt: skip

    def _begin(self, is_resumed: bool) -> ExperimentResult:
        """The result so far; a new one has no samples."""
        fresh = ExperimentResult(
            job=self.job.name,
            spec=self.job.text,
            launcher=self.launcher,
            workers=self.design.workers,
            mode=self.design.mode,
            steps=self.design.steps,
            warmup_steps=self.design.warmup_steps,
            repeats=self.design.repeats,
            started=time.time(),
            provenance=collect_provenance(self.job.folder, sys.argv),
        )
        if not (self.folder / RESULT_FILE).exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            write_result(self.folder, fresh)
            return fresh
        before = read_result(self.folder / RESULT_FILE)
        if not is_resumed:
            raise JobError(
                f"{self.folder} already holds an experiment; continue it with `resume`, or use another `out`",
                field="`out`",
            )
        differing = fresh.differences(before)
        if differing:
            raise JobError(
                f"{self.folder} holds another experiment, which differs in {', '.join(differing)}; repeat its options, "
                "or start a new one with another `out`",
                field="`resume`",
            )
        return before


def parse_workers(text: str) -> tuple[int, ...]:
    """Reads `1,2,4` as ascending numbers without duplicates.

    Raises:
        JobError: It is not a list of positive numbers.
    """
    parts = text.split(",")
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise JobError(f"{text!r} is not a list of numbers of workers; write 1,2,4", field="`workers`")
    return tuple(sorted({int(part) for part in parts}))
