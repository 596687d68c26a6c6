"""A plan as an aligned listing: what is asked for, what every rank does, what is kept."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from distrib.job.plan import Memory, Plan, Request
from distrib.job.spec.job import JobSpec
from distrib.job.step_plan import StepPlan
from distrib.observe.format import duration, num_bytes, num_items, number, plural, shares, short_path
from distrib.runs.layout import RunLayout, new_run_id
from distrib.runs.storage.location import join
from distrib.runs.storage.open import open_storage

LABEL_WIDTH = 18
Rows = list[tuple[str, str]]


def plan_listing(plan: Plan, spec: JobSpec, run_id: str | None = None) -> str:
    """A plan for people to read.

    Args:
        plan: The plan.
        spec: The job it was made of.
        run_id: The id the run will have, where it has been chosen.
    """
    name = run_id or new_run_id(spec.name, datetime.now())
    layout = RunLayout(Path(name))
    kept = open_storage(join(spec.storage, name)).location
    parts = {
        "Request": _request(plan),
        "Schedule": _schedule(plan.schedule, spec),
        "Memory per worker, batches and activations apart": _memory(plan.memory),
        f"Kept in {short_path(kept)}": _kept(plan, layout, spec),
        "Please note": [("", note) for note in (*plan.schedule.notes, *(plan.launch.notes if plan.launch else ()))],
    }
    shown = ["\n".join([title, *map(_row, rows)]) for title, rows in parts.items() if rows]
    return "\n\n".join(shown)


def trial_listing(trial: Mapping[str, Any]) -> str:
    """What a batch that was tried did, for people to read."""
    unused = trial["unused_parameters"]
    used = "all" if not unused else f"{plural(len(unused), 'parameter')} without a gradient: {', '.join(unused[:5])}"
    rows = [
        ("batch", trial["batch"]),
        *([("outputs", trial["outputs"])] if trial["outputs"] else []),
        ("loss", number(trial["loss"])),
        ("parameters used", used + (" …" if len(unused) > 5 else "")),
        *([("", "set ddp.find_unused_parameters: true, or remove them from the model")] if unused else []),
        ("time", f"{duration(trial['seconds'])} on {trial['device']}, the first step of a process"),
        ("peak memory", num_bytes(trial["peak_memory_bytes"])),
    ]
    return "\n".join(["Tried on one batch of rank 0", *map(_row, rows)])


def _row(row: tuple[str, str]) -> str:
    """A label and its text, which is wrapped under itself."""
    label, text = row
    indent = " " * (2 + (LABEL_WIDTH + 1 if label else 0))
    width = max(60, shutil.get_terminal_size().columns)
    return textwrap.fill(
        text,
        width=width,
        initial_indent=f"  {label:<{LABEL_WIDTH}} " if label else indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _request(plan: Plan) -> Rows:
    request, launch = plan.request, plan.launch
    worker = "worker" if launch is None else launch.worker
    settings = {} if launch is None else launch.settings
    return [
        ("workers", _workers(plan, worker)),
        ("device", f"{request.device}, gradients summed by {request.backend}"),
        ("CPUs", f"{request.cpus_per_worker} per worker, as many torch threads"),
        ("time-outs", _time_outs(request)),
        *((name.replace("_", " "), str(value)) for name, value in settings.items()),
    ]


def _workers(plan: Plan, worker: str) -> str:
    """How many workers; where their number cannot change, the one of the range that fits on this machine."""
    low, high = plan.request.min_workers, plan.request.max_workers
    if low == high:
        return plural(high, worker)
    if plan.launch is None or plan.launch.is_elastic:
        return f"{low:,} to {plural(high, worker)}"
    fitting = plural(plan.schedule.world_size, worker)
    return f"{fitting} of {low:,} to {high:,}, as many as fit on this machine"


def _time_outs(request: Request) -> str:
    hang, grace = duration(request.hang_timeout_seconds), duration(request.grace_seconds)
    return f"waits {hang} for a rank that hangs, {grace} for a run to stop"


def _schedule(schedule: StepPlan, spec: JobSpec) -> Rows:
    batch = f"{plural(schedule.global_batch_size, 'sample')}, {shares(schedule.rank_batches)}"
    sizes = None if schedule.order is None else schedule.order.batch_sizes
    if sizes is not None and sizes[0] != sizes[1]:
        batch = f"{sizes[0]:,} to {batch}"
    rows = [
        ("data", f"{schedule.train_samples:,} samples{_order(schedule, spec)}"),
        ("steps", _steps(schedule)),
        ("batch", batch),
    ]
    if sizes is None and schedule.last_batch_size != schedule.global_batch_size:
        last = f"{plural(schedule.last_batch_size, 'sample')}, {shares(schedule.last_rank_batches)}"
        rows.append(("last of an epoch", last))
    if len(schedule.micro_batches) > 1:
        rows.append(("accumulate", " + ".join(f"{size:,}" for size in schedule.micro_batches) + " per rank"))
    if spec.model.weights is not None:
        rows.append(("begins with", f"the weights of {spec.model.weights}"))
    rows.append(("precision", spec.train.precision))
    return [*rows, ("evaluation", _evaluation(schedule))]


def _order(schedule: StepPlan, spec: JobSpec) -> str:
    """The order of samples, if it is not a plain shuffle: how many samples an epoch has."""
    name = spec.data.order.target
    if schedule.order is None:
        return "" if name == "shuffle" else ", in order"
    which = "first epoch" if schedule.order.may_differ else "epoch"
    return f"; {schedule.order.samples:,} in the {which}, by {name}"


def _steps(schedule: StepPlan) -> str:
    total, each = schedule.total_steps, schedule.steps_per_epoch
    if schedule.epoch_ends:
        counts = schedule.order.num_steps if schedule.order is not None else ()
        return f"{total:,} in {plural(len(counts), 'epoch')} of {min(counts):,} to {max(counts):,}"
    if total % each:
        return f"{total:,}, {each:,} to an epoch"
    return f"{total:,} = {plural(total // each, 'epoch')} of {each:,}"


def _evaluation(schedule: StepPlan) -> str:
    if not schedule.eval_samples:
        return "none: the job has no data.eval"
    if not schedule.is_ever_evaluated:
        return "never"
    interval = _every(schedule.eval_interval_steps, schedule, schedule.eval_interval_epochs)
    end = (
        " and at the end"
        if schedule.eval_interval_steps and schedule.total_steps % schedule.eval_interval_steps
        else ""
    )
    return f"{schedule.eval_samples:,} samples {interval}{end}, {schedule.eval_batch_size:,} per rank at a time"


def _every(steps: int, schedule: StepPlan, epochs: int = 0) -> str:
    """An interval: `every step`, `every 10 steps`, `every epoch`."""
    if epochs:
        count, unit = epochs, "epoch"
    elif not schedule.epoch_ends and steps % schedule.steps_per_epoch == 0:
        count, unit = steps // schedule.steps_per_epoch, "epoch"
    else:
        count, unit = steps, "step"
    return f"every {unit}" if count == 1 else f"every {count:,} {unit}s"


def _memory(memory: Memory | None) -> Rows:
    if memory is None:
        return []
    known = {"weights": memory.weights_bytes, "gradients": memory.gradients_bytes, "optimizer": memory.optimizer_bytes}
    sizes = {name: size for name, size in known.items() if size is not None}
    rows = [(name, num_bytes(size)) for name, size in sizes.items()]
    return [("parameters", num_items(memory.num_parameters)), *rows, ("together", num_bytes(sum(sizes.values())))]


def _checkpoints(plan: Plan, spec: JobSpec) -> str:
    schedule, memory = plan.schedule, plan.memory
    if not schedule.is_ever_saved:
        return "none: checkpoint.every is never"
    seconds = schedule.save_interval_seconds
    interval = (
        f"every {duration(seconds)}"
        if seconds
        else _every(schedule.save_interval_steps, schedule, schedule.save_interval_epochs)
    )
    size = "" if memory is None else f", {num_bytes(memory.weights_bytes + (memory.optimizer_bytes or 0))} each"
    return f"{interval} and at the end, {spec.checkpoint.keep} kept{size}"


def _has_averages(spec: JobSpec) -> bool:
    return any(callback.target == "distrib.callbacks:Ema" for callback in spec.callbacks)


def _kept(plan: Plan, layout: RunLayout, spec: JobSpec) -> Rows:
    interval = _every(plan.schedule.log_interval_steps, plan.schedule)
    weights = "" if plan.memory is None else f", {num_bytes(plan.memory.weights_bytes)}"
    best = spec.checkpoint.best
    return [
        (layout.record_file.name, "status, this plan and where the run comes from"),
        (layout.metrics_file.name, f"training {interval}, and every evaluation"),
        ("checkpoints/", _checkpoints(plan, spec)),
        (layout.weights_file.name, f"final weights{weights}"),
        *([(layout.best_file.name, f"weights of the best {best.metric}")] if best else []),
        *([(layout.ema_file.name, f"averages of the weights{weights}")] if _has_averages(spec) else []),
        ("logs/", "what each rank prints"),
    ]
