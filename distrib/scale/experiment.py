"""The experiment: the job itself, run at each size by the launcher that would train it, sizes in turns."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from distrib.errors import DistribError, JobError, StoppedError
from distrib.job.reader import Job
from distrib.observe.observer import SilentObserver
from distrib.scale.results import Mode, Record, summarize

FORMAT = 2
RESULT_FILE = "scale.json"
_SETTINGS = ("failures.max_restarts=0", "checkpoint.every=never", "checkpoint.best=null")


@dataclass(frozen=True)
class Design:
    """What an experiment measures.

    Attributes:
        workers: The sizes, ascending.
        mode: `strong` keeps the job's global batch, `weak` multiplies it by the number of workers.
        steps: Measured in each run.
        warmup_steps: Run before them.
        repeats: Runs at each size.
    """

    workers: tuple[int, ...]
    mode: Mode
    steps: int
    warmup_steps: int
    repeats: int

    def turns(self) -> list[tuple[int, int]]:
        """(repeat, workers) of each run: every repeat goes over all sizes, up and down in turn, against drift."""
        return [
            (repeat, size)
            for repeat in range(self.repeats)
            for size in (self.workers if repeat % 2 == 0 else self.workers[::-1])
        ]


class _NoticeObserver(SilentObserver):
    """Passes on what the launcher has to say, such as what it waits for, and nothing else."""

    def __init__(self, notice: Callable[[str], None]) -> None:
        self._notice = notice

    def notice(self, message: str) -> None:
        """Passed on."""
        self._notice(message)


@dataclass(frozen=True)
class Experiment:
    """An experiment and its folder.

    Attributes:
        job: The job to measure.
        design: What is measured.
        launcher: What starts the ranks.
        address: The Ray cluster, if any.
        folder: Where results and runs are kept.
        notice: Told how it goes.
    """

    job: Job
    design: Design
    launcher: Literal["local", "ray"]
    address: str | None
    folder: Path
    notice: Callable[[str], None]

    def check(self) -> None:
        """Refuses sizes that cannot be held, before anything starts.

        Raises:
            JobError: The job is wrong, or a size is more than this machine or the dataset holds.
            LaunchError: A size is more than the cluster holds.
        """
        from distrib.launch.start import check_room, plan

        largest = self._job_at(self.design.workers[-1])
        if self.address is not None:
            check_room(largest, self.address)
        if self.launcher == "local":
            facts = plan(largest).schedule
            if facts.train_samples < largest.spec.data.batch_size and self.design.mode == "weak":
                raise JobError(
                    f"weak scaling to {facts.world_size} workers takes batches of {largest.spec.data.batch_size}, but "
                    f"the dataset has {facts.train_samples} samples; ask for fewer workers or a smaller batch_size",
                    field="--workers",
                )

    def run(self, *, is_resumed: bool) -> Record:
        """Measures what has not been measured yet; keeps the result after every run, and returns it.

        Raises:
            JobError: The folder holds another experiment, or this one and was not to be resumed.
            StoppedError: A signal stopped it; what was measured is kept.
        """
        result = self._begin(is_resumed)
        done = {(sample["repeat"], sample["workers"]) for sample in result["samples"]}
        failed = {sample["workers"] for sample in result["samples"] if sample.get("error")}
        turns = self.design.turns()
        for number, (repeat, size) in enumerate(turns):
            if (repeat, size) in done or size in failed:
                continue
            self.notice(f"run {number + 1} of {len(turns)}: {size} worker{'s' if size > 1 else ''}")
            try:
                sample = self._measure(repeat, size)
            except (StoppedError, KeyboardInterrupt):
                raise StoppedError(
                    f"stopped after {len(result['samples'])} of {len(turns)} runs; what was measured is in "
                    f"{self.folder / RESULT_FILE}; the same command with --out {self.folder} --resume goes on"
                ) from None
            if sample.get("error"):
                failed.add(size)
                self.notice(f"{size} workers: {sample['error']}")
            result["samples"].append(sample)
            result["sizes"] = summarize(result["samples"], self.design.workers)
            write_result(self.folder, result)
        return result

    def _measure(self, repeat: int, size: int) -> Record:
        from distrib.launch.start import run
        from distrib.train.context import Measurement

        measurement = Measurement(self.design.steps, self.design.warmup_steps)
        run_id = f"workers-{size}-repeat-{repeat}"
        sample: Record = {"workers": size, "repeat": repeat, "run_id": run_id}
        try:
            finished = run(
                self._job_at(size),
                launcher=self.launcher,
                address=self.address,
                run_id=run_id,
                fresh=True,
                observer=_NoticeObserver(self.notice),
                measurement=measurement,
            )
            sample["measurement"] = json.loads(finished.layout.measurement_file.read_bytes())
        except (StoppedError, JobError):
            raise
        except (DistribError, OSError) as error:
            sample["error"] = str(error)
        return sample

    def _job_at(self, size: int) -> Job:
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

    def _begin(self, is_resumed: bool) -> Record:
        """The result so far, empty at first."""
        fresh: Record = {
            "format": FORMAT,
            "job": self.job.name,
            "spec": self.job.text,
            **json.loads(json.dumps(asdict(self.design))),
            "launcher": self.launcher,
            "sizes": [],
            "samples": [],
        }
        if not (self.folder / RESULT_FILE).exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            write_result(self.folder, fresh)
            return fresh
        before = read_result(self.folder / RESULT_FILE)
        if not is_resumed:
            raise JobError(
                f"{self.folder} holds an experiment already; --resume goes on with it, another --out begins a new one",
                field="--out",
            )
        differing = [name for name in fresh if name not in ("sizes", "samples") and fresh[name] != before.get(name)]
        if differing:
            raise JobError(
                f"{self.folder} holds another experiment: it differs in {', '.join(differing)}; ask for the same, or "
                "begin a new one with another --out",
                field="--resume",
            )
        return before


def write_result(folder: Path, result: Record) -> None:
    """Writes scale.json; it is whole at any time."""
    temporary = folder / f".{RESULT_FILE}.{os.getpid()}"
    temporary.write_text(json.dumps(result, indent=1))
    temporary.replace(folder / RESULT_FILE)


def read_result(path: Path | str) -> Record:
    """An experiment's result, from its scale.json or the folder that holds it.

    Raises:
        JobError: There is none, or it cannot be read.
    """
    file = Path(path)
    file = file / RESULT_FILE if file.is_dir() else file
    try:
        result: Any = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise JobError(f"{file} cannot be read as the result of an experiment: {error}") from None
    if not isinstance(result, dict) or not {"sizes", "samples", "mode"} <= result.keys():
        raise JobError(f"{file} is not the result of an experiment; distrib scale JOB --workers 1,2,4 writes one")
    if result.get("format") != FORMAT:
        raise JobError(f"{file} has format {result.get('format')}; this version of distrib reads format {FORMAT}")
    return result


def parse_workers(text: str) -> tuple[int, ...]:
    """`1,2,4` as numbers, ascending, each once.

    Raises:
        JobError: It is something else.
    """
    parts: Sequence[str] = text.split(",")
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise JobError(f"{text!r} is not a list of numbers of workers; write 1,2,4", field="--workers")
    return tuple(sorted({int(part) for part in parts}))
