"""Rules that relate several fields of a job spec; each problem names the field at fault."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pydantic_core import PydanticCustomError

from distrib.runs.storage.location import problem_of

if TYPE_CHECKING:
    from distrib.job.spec.job import JobSpec
    from distrib.job.spec.training import Train

CONTRADICTION = "contradiction"
"""The pydantic error type of `contradiction`."""

Problem = tuple[str, str]
"""The dotted path of the field at fault, relative to the section of the rule; and a message."""


def contradiction(*problems: Problem) -> PydanticCustomError:
    """The error for a validator to raise; its context lists the problems so that each can be located."""
    summary = "; ".join(f"{field}: {message}" if field else message for field, message in problems)
    return PydanticCustomError(CONTRADICTION, "{summary}", {"summary": summary, "problems": list(problems)})


def length_contradictions(train: Train) -> Iterator[Problem]:
    """Problems with the length of the training, which must be given exactly once."""
    if train.epochs is None and train.steps is None:
        yield "", "epochs or steps is required: the length of the training"
    if train.epochs is not None and train.steps is not None:
        yield "steps", "epochs and steps exclude each other; remove one"


def contradictions(spec: JobSpec) -> Iterator[Problem]:
    """Problems of a spec whose fields are each valid on their own."""
    yield from _objective(spec)
    yield from _evaluation(spec)
    if spec.ddp.compress == "powersgd" and spec.train.precision == "fp16":
        yield (
            "ddp.compress",
            "powersgd carries its compression error over to later steps, including fp16 overflows; use "
            "train.precision bf16 or fp32, or another compression",
        )
    names = [tracker.target for tracker in spec.trackers]
    for number, name in enumerate(names):
        if name in names[:number]:
            yield f"trackers.{number}", f"{name} is listed twice; remove one"
    if (problem := problem_of(spec.storage)) is not None:
        yield "storage", problem


def _objective(spec: JobSpec) -> Iterator[Problem]:
    if spec.loss is None and spec.step is None:
        yield "loss", "loss or step is required: what to minimize"
    if spec.loss is not None and spec.step is not None:
        yield "step", "loss and step exclude each other; remove one"
    yield from _optimizers(spec)


def _optimizers(spec: JobSpec) -> Iterator[Problem]:
    if spec.optimizer is None and spec.optimizers is None:
        yield "optimizer", "optimizer or optimizers is required: how to update the parameters"
    if spec.optimizer is not None and spec.optimizers is not None:
        yield "optimizers", "optimizer and optimizers exclude each other; remove one"
    if spec.schedule is not None and spec.optimizers is not None:
        yield "schedule", "with optimizers each has a schedule of its own: optimizers.NAME.schedule"


def _evaluation(spec: JobSpec) -> Iterator[Problem]:
    if spec.metrics and spec.data.eval is None:
        yield "metrics", "metrics are computed on data.eval, which the job does not have; add it, or remove metrics"
    if spec.optimizer is not None or spec.optimizers is not None:
        for each in spec.optimizer_specs.values():
            if each.schedule is not None and each.schedule.every == "eval":
                field = each.schedule_field
                yield from _judged(spec, f"{field}.metric", each.schedule.metric, f"{field}.every", "every: eval")
    best = spec.checkpoint.best
    if best is not None:
        yield from _judged(spec, "checkpoint.best.metric", best.metric, "checkpoint.best", "best")


def _judged(spec: JobSpec, field: str, metric: str | None, parent: str, what: str) -> Iterator[Problem]:
    """Problems of `field`, which names the metric that `what` (at `parent`) depends on."""
    names = [*spec.metrics, "loss"]
    if metric not in names:
        match = difflib.get_close_matches(metric or "", names, n=1)
        advice = f"did you mean '{match[0]}'?" if match else f"the job has: {', '.join(names)}"
        yield field, f"no metric is called '{metric}'; {advice}"
    if spec.data.eval is None:
        yield parent, f"{what} needs data.eval, which the job does not have; add it, or change {parent}"
    elif spec.train.eval_every == "never":
        yield parent, f"{what} has no effect with train.eval_every: never; change one of them"
