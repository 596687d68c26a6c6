"""Predictions of `distrib scale` held against what is measured, on hosts of a lab whose links are limited."""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cluster.lab import Lab, LabError
from cluster.lab.network import parse_rate
from distrib.scale.model import fit_model
from distrib.scale.result import ExperimentResult, read_result
from tests.bench.compare import Row, take_turns
from tests.bench.in_lab import a_lab, on_head

JOB = "jobs/simulated.yaml"
ERROR_BOUND = 0.15
COMPRESSED_BOUND = 1 / 1.6
TIMEOUT_SECONDS = 1200
STEPS = ("--steps", "12", "--warmup", "3")


@dataclass(frozen=True)
class Case:
    """Links of a rate, the sizes to learn from, the size to predict, and a model that loads such links.

    Attributes:
        rate: Of each link, each way.
        sizes: Numbers of workers to measure, one a host.
        next_size: The number of workers to predict and then to measure.
        megabytes: The model's parameters.
        ms_per_sample: What its passes take for a sample.
    """

    rate: str
    sizes: tuple[int, ...]
    next_size: int
    megabytes: float
    ms_per_sample: float = 8.0

    @property
    def settings(self) -> tuple[str, ...]:
        """The job's, as options."""
        return job_settings(megabytes=self.megabytes, ms_per_sample=self.ms_per_sample)


CASES = (
    Case("100mbit", (1, 2, 4), 8, megabytes=4),
    Case("200mbit", (1, 2, 4), 8, megabytes=8),
    Case("1gbit", (1, 2, 3), 4, megabytes=32),
)


def measure(rounds: int) -> list[Row]:
    """For each rate and mode four rows; two of compression and overlap; or one that says why there is no lab.

    A round is a repeat of each size.
    """
    rows: list[Row] = []
    try:
        for case in CASES:
            with a_lab(case.next_size, cpus=1, rate=case.rate) as lab:
                for mode in ("strong", "weak"):
                    rows += predicted(lab, case, mode, rounds)
        with a_lab(2, cpus=1, rate="1gbit") as lab:
            rows += [compressed(lab, rounds), overlapped(lab, rounds)]
    except LabError as error:
        rows.append(Row("scaling", problem=str(error), skipped=True))
    return rows


def predicted(lab: Lab, case: Case, mode: str, rounds: int) -> list[Row]:
    """Measures the sizes, predicts the next one, measures that, and says how far the prediction was off."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        learn = experiment(lab, folder / "sizes", case.sizes, mode, rounds, case.settings)
        found = experiment(lab, folder / "next", (case.next_size,), mode, rounds, case.settings)
    model = fit_model(learn)
    cost = model.cost(case.next_size)
    (row,) = found.measured
    what = f"{case.rate}, {mode}, {case.next_size} workers"
    measured = row.step_seconds
    share = model.links.inter.bits_per_second / parse_rate(case.rate)
    return [
        Row(f"{what}: seconds a step, predicted from {case.sizes}, and measured", (cost.seconds,), (measured,)),
        Row(f"{what}: how far the prediction is off", (abs(cost.seconds / measured - 1),), bound=ERROR_BOUND),
        Row(f"{what}: how far the model is off at the sizes measured", tuple(map(abs, model.residuals.values()))),
        Row(f"{what}: bandwidth that the sweep found, of the link's", (share,)),
        Row(f"{what}: share of the machine's cores that was busy", (row.cores_busy,), bound=0.9),
    ]  # fmt: skip


def compressed(lab: Lab, rounds: int) -> Row:
    """A step bound by communication, with gradients in fp16 and as they are."""
    settings = job_settings(megabytes=32, ms_per_sample=0.1)
    sides = {
        name: partial(step_seconds, lab, (*settings, "--set", f"ddp.compress={name}")) for name in ("fp16", "none")
    }
    seconds = take_turns(rounds, sides)
    what = "1gbit, 2 workers: seconds a step, gradients in fp16, float32"
    return Row(what, tuple(seconds["fp16"]), tuple(seconds["none"]), COMPRESSED_BOUND)


def overlapped(lab: Lab, rounds: int) -> Row:
    """What communication is left over where the backward pass is longer: the last bucket's, and a tenth of all."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        settings = job_settings(megabytes=8, ms_per_sample=8)
        result = experiment(lab, Path(name, "overlap"), (1, 2), "strong", rounds, settings)
    model, row = fit_model(result), result.measured[-1]
    network, topology = model.links.network(2), model.links.topology(2)
    costs = [network.all_reduce_seconds(bucket.num_bytes, topology) for bucket in model.workload.buckets]
    if sum(costs) >= row.split.compute * 2 / 3:
        return Row("overlap", problem="the backward pass is not longer than the communication")
    allowed = costs[-1] + 0.1 * sum(costs)
    what = f"1gbit, 2 workers: exposed of {sum(costs):.3f} s of communication, against the last bucket's and a tenth, s"
    return Row(what, (row.split.communication,), (allowed,), bound=1.0)


def step_seconds(lab: Lab, options: tuple[str, ...]) -> float:
    """The median of a job's steps on two workers."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        result = experiment(lab, Path(name, "side"), (2,), "strong", 1, options)
    return result.measured[0].step_seconds


def experiment(
    lab: Lab, folder: Path, sizes: tuple[int, ...], mode: str, repeats: int, options: tuple[str, ...]
) -> ExperimentResult:
    """The result of `distrib scale` on the lab's cluster."""
    asked = ["--workers", ",".join(map(str, sizes)), "--mode", mode, "--repeats", str(repeats), "--out", str(folder)]
    command = [sys.executable, "-m", "distrib", "scale", JOB, *asked, *STEPS, *options]
    on_head(lab, "distrib scale", command, {}, timeout_seconds=TIMEOUT_SECONDS)
    return read_result(folder)


def job_settings(*, megabytes: float, ms_per_sample: float) -> tuple[str, ...]:
    """Of the simulated job, one worker a host."""
    model = {"layers": 8, "megabytes": megabytes, "fixed_ms": 20, "ms_per_sample": ms_per_sample}
    bucket = max(1.0, megabytes / 8)
    settings = (f"model.args={json.dumps(model)}", f"ddp.bucket_mb={bucket}", "resources.placement=strict_spread")
    return tuple(option for setting in settings for option in ("--set", setting))
