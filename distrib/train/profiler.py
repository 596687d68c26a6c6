"""A rank that measures its steps instead of training: what a scaling experiment knows, it knows from here."""

from __future__ import annotations

import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from distrib.compat.torch_ddp import bucket_bytes, bucket_layout
from distrib.job.plan import StepPlan
from distrib.train.context import AttemptConfig, RankContext
from distrib.train.control import gather_rows
from distrib.train.data.loader import StepBatch, StepLoader
from distrib.train.loss_accumulator import LossAccumulator
from distrib.train.randomness import derive_seed, reseed
from distrib.train.step import TrainStep
from distrib.train.task import Task

if TYPE_CHECKING:
    from collections.abc import Iterator

PROFILED_STEPS = 3
"""Steps, after those to warm up, in which it is noted when each gradient is ready."""
GROUP = 5
"""Measured steps between two that do not synchronise gradients."""
_SWEEP_BYTES = tuple(1024 * 4**power for power in range(9))
_SWEEP_REPEATS = 7
_SWEEP_TIMES_OF_LARGEST = 2.0


def steps_needed(steps: int, warmup_steps: int) -> int:
    """The optimizer steps that a job must have for so many to be measured."""
    return warmup_steps + PROFILED_STEPS + steps + -(-steps // GROUP)


class Clock:
    """Points in time on a device: on CUDA, when the work before them is done there, which nobody waits for."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._has_events = device.type == "cuda"

    def mark(self) -> Any:
        """Now."""
        if not self._has_events:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._device))
        return event

    def seconds(self, start: Any, end: Any) -> float:
        """The seconds between two marks, once their work is done."""
        if not self._has_events:
            return float(end - start)
        end.synchronize()
        return float(start.elapsed_time(end)) / 1000

    def wait(self) -> None:
        """Waits until all work is done."""
        if self._has_events:
            torch.cuda.synchronize(self._device)


class StepProfiler:
    """Runs the job's own steps and notes what each spends its time on; the weights it leaves are of no use.

    A step is measured from the end of the one before it: waiting for data, forward and backward pass, update. A pass
    that does not synchronise gradients, one in six, tells what of the passes is communication.
    """

    def __init__(
        self,
        assignment: AttemptConfig,
        host: RankContext,
        schedule: StepPlan,
        task: Task,
        loader: StepLoader,
        stepper: TrainStep,
        device: torch.device,
        control_group: dist.ProcessGroup,
    ) -> None:
        assert assignment.measurement is not None
        self._measurement = assignment.measurement
        self._assignment = assignment
        self._host = host
        self._schedule = schedule
        self._task = task
        self._loader = loader
        self._stepper = stepper
        self._device = device
        self._group = control_group
        self._clock = Clock(device)
        self._ledger = LossAccumulator(device, stepper.is_weighted)
        self._batch: StepBatch | None = None
        self._marks: list[tuple[bool, int, list[Any]]] = []
        self._step = 0

    def run(self, first: StepBatch, file: Path) -> bool:
        """Measures, and has rank 0 write the result to `file`; returns whether it got to the end."""
        self._batch = first
        for _ in range(self._measurement.warmup_steps):
            self._run_step(is_synced=True)
        ready = self._profile()
        self._marks.clear()
        is_stopped = self._align()
        psutil.cpu_percent()  # of all cores of this host, whoever uses them; from here
        for number in range(self._measurement.steps):
            if is_stopped:
                return False
            self._run_step(is_synced=True)
            if (number + 1) % GROUP == 0 or number + 1 == self._measurement.steps:
                self._run_step(is_synced=False)
                is_stopped = self._align()
        self._clock.wait()
        busy = psutil.cpu_percent() / 100
        steps, buckets = self._gather_steps(), self._buckets(ready)
        usage = gather_rows([float(self._peak_memory_bytes()), busy], self._group)
        hosts: list[Any] = [None] * self._schedule.world_size
        dist.all_gather_object(hosts, self._host.place.host_name, group=self._group)
        result = {
            "world_size": self._schedule.world_size,
            "global_batch_size": self._schedule.global_batch_size,
            "train_samples": self._schedule.train_samples,
            "steps_per_epoch": self._schedule.steps_per_epoch,
            "accumulate": self._schedule.accumulate,
            "device": self._device.type,
            "device_name": torch.cuda.get_device_name(self._device) if self._device.type == "cuda" else None,
            "backend": self._assignment.request.backend,
            "threads": torch.get_num_threads(),
            "hosts": hosts,
            "gradients": ready,
            "buckets": buckets,
            "steps": steps,
            "sweep": self._sweep(max((num_bytes for num_bytes, _ in buckets), default=0.0)),
            "peak_memory_bytes": max(row[0] for row in usage),
            "cores_busy": max(row[1] for row in usage),
        }
        if self._host.place.rank == 0:
            file.write_text(json.dumps(result))
        dist.barrier(group=self._group)
        return True

    def _run_step(self, *, is_synced: bool) -> None:
        """One step of training, but that an unsynchronised gradient is thrown away."""
        start = self._marks[-1][2][-1] if self._marks and self._marks[-1][2] else self._clock.mark()
        if self._batch is None:
            self._batch = self._loader.next()
        batch, self._batch = self._batch, None
        loaded = self._clock.mark()
        reseed(derive_seed("step", self._assignment.job.spec.train.seed, self._step, self._host.place.rank))
        self._stepper.forward_backward(batch, self._ledger, is_synced=is_synced)
        computed = self._clock.mark()
        if is_synced:
            self._stepper.update()
        else:
            self._task.model.zero_grad()
        updated = self._clock.mark()
        self._marks.append((is_synced, self._schedule.batch_size_at(batch.step), [start, loaded, computed, updated]))
        self._loader.prefetch()
        self._step += 1

    def _align(self) -> bool:
        """Lets the ranks begin the next step together; returns whether any was asked to stop."""
        rows = gather_rows([float(self._host.stop_requested())], self._group)
        self._marks.append((False, 0, []))
        return any(row[0] for row in rows)

    def _profile(self) -> list[list[float]]:
        """When each gradient is ready: [bytes, fraction of the forward and backward pass], by order of parameters."""
        parameters = [parameter for parameter in self._task.model.parameters() if parameter.requires_grad]
        fractions: list[list[float]] = [[] for _ in parameters]
        for _ in range(PROFILED_STEPS):
            marks: dict[int, Any] = {}
            with _noting(parameters, self._clock, marks):
                self._run_step(is_synced=False)
            self._clock.wait()
            _, loaded, computed, _ = self._marks[-1][2]
            whole = self._clock.seconds(loaded, computed)
            for number, mark in marks.items():
                fractions[number].append(min(1.0, self._clock.seconds(loaded, mark) / whole) if whole > 0 else 1.0)
        return [
            [float(parameter.numel() * parameter.element_size()), statistics.median(seen) if seen else 1.0]
            for parameter, seen in zip(parameters, fractions, strict=True)
        ]

    def _buckets(self, ready: list[list[float]]) -> list[list[float]]:
        """DDP's buckets in the order in which it reduces them: [bytes, fraction at which its gradients are ready]."""
        model = self._stepper.model
        if not isinstance(model, DistributedDataParallel):
            return []
        buckets = [[ready[index] for index in bucket] for bucket in bucket_layout(model)]
        if not buckets or sum(map(len, buckets)) != len(ready):  # with unused parameters DDP keeps its first buckets
            sizes = bucket_bytes(model)
            return [[size, (number + 1) / len(sizes)] for number, size in enumerate(sizes)]
        return [[sum(size for size, _ in bucket), max(fraction for _, fraction in bucket)] for bucket in buckets]

    def _gather_steps(self) -> list[dict[str, Any]]:
        """Each measured step: seconds of its parts, as the mean over the ranks and the largest of them."""
        taken = [(is_synced, samples, marks) for is_synced, samples, marks in self._marks if marks]
        mine = [
            self._clock.seconds(marks[part], marks[part + 1]) for _, _, marks in taken for part in range(3)
        ]  # fmt: skip
        rows = gather_rows(mine, self._group)
        steps = []
        for number, (is_synced, samples, _) in enumerate(taken):
            parts = [[row[3 * number + part] for row in rows] for part in range(3)]
            whole = [sum(values) for values in zip(*parts, strict=True)]
            named = dict(zip(("data", "compute", "optimizer", "seconds"), (*parts, whole), strict=True))
            means = {name: [statistics.fmean(values), max(values)] for name, values in named.items()}
            steps.append({"is_synced": is_synced, "samples": samples, **means})
        return steps

    def _sweep(self, largest_bytes: float) -> list[dict[str, Any]]:
        """All-reduces on the job's own process group: their bytes, and the seconds of each, as the mean over ranks."""
        if self._schedule.world_size == 1:
            return []
        began = time.perf_counter()
        found: list[dict[str, Any]] = []
        for num_bytes in _SWEEP_BYTES:
            elapsed = max(row[0] for row in gather_rows([time.perf_counter() - began], self._group))
            if found and (
                num_bytes > largest_bytes * _SWEEP_TIMES_OF_LARGEST or elapsed > self._measurement.sweep_seconds
            ):
                break
            tensor = torch.zeros(num_bytes // 4, device=self._device)
            dist.all_reduce(tensor)
            marks = [self._clock.mark()]
            for _ in range(_SWEEP_REPEATS):
                dist.all_reduce(tensor)
                marks.append(self._clock.mark())
            self._clock.wait()
            mine = [self._clock.seconds(start, end) for start, end in pairwise(marks)]
            rows = gather_rows(mine, self._group)
            seconds = [statistics.fmean(column) for column in zip(*rows, strict=True)]
            found.append({"num_bytes": num_bytes, "seconds": seconds})
        return found

    def _peak_memory_bytes(self) -> int:
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


@contextmanager
def _noting(parameters: list[torch.nn.Parameter], clock: Clock, marks: dict[int, Any]) -> Iterator[None]:
    """Marks, by a parameter's number, when its gradient is there."""

    def make_hook(number: int) -> Callable[[torch.Tensor], None]:
        return lambda _: marks.update({number: clock.mark()})

    hooks: list[Any] = []
    for number, parameter in enumerate(parameters):
        hooks.append(parameter.register_post_accumulate_grad_hook(make_hook(number)))  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
