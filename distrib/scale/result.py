"""The result of a scaling experiment, and the file scale.json that holds it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from distrib.errors import JobError
from distrib.runs.files.atomic import atomic_write
from distrib.scale.measurement import MeasuredRun

FORMAT = 2
RESULT_FILE = "scale.json"
CORE_LIMIT = "the CPU cores"
"""How the limit of a size starts whose CPU cores are busy."""

PARTS = ("compute", "communication", "optimizer", "data")
"""The parts of a step, in the order of tables and charts."""

Mode = Literal["strong", "weak"]
Interval = tuple[float, float]


@dataclass(frozen=True)
class StepSplit:
    """The seconds of a step by what they are spent on; `communication` is the part that compute does not hide."""

    data: float
    compute: float
    communication: float
    optimizer: float

    @property
    def seconds(self) -> float:
        """The whole step."""
        return self.data + self.compute + self.communication + self.optimizer


@dataclass(frozen=True, kw_only=True)
class MeasuredSize:
    """What was measured at one number of workers.

    Attributes:
        workers: The number of workers.
        status: Tells this row from one that failed.
        hosts: The number of hosts that they ran on.
        global_batch_size: Samples of a step.
        step_seconds: Median over all steps of all repeats.
        interval: Its 95 % interval.
        samples_per_second: Of all workers together.
        split: The parts of a step.
        straggling: The fraction by which the slowest rank's compute exceeds the mean.
        peak_memory_bytes: The largest peak of a rank.
        cores_busy: The busy share of the cores of the busiest host.
        num_steps: How many steps were measured.
        repeats: How many runs they come from.
        notes: What makes these figures less certain than they look.
        limit: What costs the most time compared with perfect scaling from the smallest size; at that size None, unless
            its CPU cores are busy all the time.
        error: Why a further repeat at this size failed, if one did.
        speedup: Samples per second relative to the smallest size; None if only one size was measured.
        efficiency: Samples per second and worker relative to the smallest size.
        efficiency_interval: Its 95 % interval.
    """

    workers: int
    status: Literal["measured"] = "measured"
    hosts: int
    global_batch_size: int
    step_seconds: float
    interval: Interval
    samples_per_second: float
    split: StepSplit
    straggling: float
    peak_memory_bytes: float
    cores_busy: float
    num_steps: int
    repeats: int
    notes: tuple[str, ...] = ()
    limit: str | None = None
    error: str | None = None
    speedup: float | None = None
    efficiency: float | None = None
    efficiency_interval: Interval | None = None

    @property
    def is_core_bound(self) -> bool:
        """Whether busy CPU cores limit the step."""
        return self.limit is not None and self.limit.startswith(CORE_LIMIT)

    @property
    def samples_per_worker(self) -> float:
        """The samples of one worker in a step."""
        return self.global_batch_size / self.workers


@dataclass(frozen=True, kw_only=True)
class FailedSize:
    """A number of workers at which no run succeeded."""

    workers: int
    status: Literal["failed"] = "failed"
    error: str


SizeResult = MeasuredSize | FailedSize


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One run of the experiment: its measurement, or why there is none."""

    workers: int
    repeat: int
    run_id: str | None = None
    measurement: MeasuredRun | None = None
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class ExperimentResult:
    """An experiment: what was asked for, the raw samples, and a row for each size.

    Attributes:
        format: The version of this format.
        job: The job's name.
        spec: The job's YAML.
        launcher: What started the ranks.
        workers: The sizes, ascending.
        mode: `strong` keeps the global batch, `weak` keeps each worker's share of it.
        steps: Steps measured in each run.
        warmup_steps: Steps run before them.
        repeats: Runs at each size.
        started: Unix seconds when the experiment began; None in files of older versions.
        provenance: Versions, machine and command, as in run.json; None in files of older versions.
        sizes: A row for each size that was tried, ascending.
        samples: Every run.
    """

    format: int = FORMAT
    job: str
    spec: str
    launcher: str
    workers: tuple[int, ...]
    mode: Mode
    steps: int
    warmup_steps: int
    repeats: int
    started: float | None = None
    provenance: Mapping[str, Any] | None = None
    sizes: tuple[SizeResult, ...] = ()
    samples: tuple[Sample, ...] = ()

    @property
    def measured(self) -> list[MeasuredSize]:
        """The sizes that were measured, ascending."""
        return [row for row in self.sizes if isinstance(row, MeasuredSize)]

    @property
    def failed(self) -> list[FailedSize]:
        """The sizes that failed, ascending."""
        return [row for row in self.sizes if isinstance(row, FailedSize)]

    def differences(self, other: ExperimentResult) -> list[str]:
        """The fields in which two experiments were set up differently."""
        setup = ("job", "spec", "launcher", "workers", "mode", "steps", "warmup_steps", "repeats")
        return [name for name in setup if getattr(self, name) != getattr(other, name)]

    def as_data(self) -> dict[str, Any]:
        """The result as scale.json holds it."""
        return asdict(self)


def write_result(folder: Path, result: ExperimentResult) -> None:
    """Writes scale.json atomically."""
    atomic_write(folder / RESULT_FILE, json.dumps(result.as_data(), indent=1))


def read_result(path: Path | str) -> ExperimentResult:
    """Reads an experiment's result from its scale.json, or from the folder that holds it.

    Raises:
        JobError: The file does not exist or is not the result of an experiment.
    """
    file = Path(path)
    file = file / RESULT_FILE if file.is_dir() else file
    try:
        data: Any = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise JobError(f"{file} cannot be read as the result of an experiment: {error}") from None
    if not isinstance(data, dict) or not {"sizes", "samples", "mode"} <= data.keys():
        raise JobError(f"{file} is not the result of an experiment; distrib scale writes one")
    if data.get("format") != FORMAT:
        raise JobError(f"{file} has format {data.get('format')}; this version of distrib reads format {FORMAT}")
    try:
        return TypeAdapter(ExperimentResult).validate_python(data)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise JobError(f"{file} is damaged: {field}: {first['msg']}; measure again into a new `out`") from None
