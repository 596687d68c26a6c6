"""A rank that measures its steps instead of training, for scaling experiments."""

from __future__ import annotations

import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import psutil
import torch
import torch.distributed as dist

from distrib.job.step_plan import StepPlan
from distrib.train.checkpoint.parts import MODEL
from distrib.train.context import Measurement
from distrib.train.data.loader import StepLoader
from distrib.train.optimization.step import OptimizerStep
from distrib.train.process.clock import Clock
from distrib.train.process.process_groups import gather_rows, limit_waiting
from distrib.train.rank import Rank
from distrib.train.training import Training

if TYPE_CHECKING:
    from collections.abc import Iterator

PROFILED_STEPS = 3
"""Steps, after those for warm-up, in which it is measured when each gradient is ready."""
GROUP = 5
"""Measured steps between two that do not synchronize gradients."""
_SWEEP_BYTES = tuple(1024 * 4**power for power in range(9))
_SWEEP_REPEATS = 7
_SWEEP_TIMES_OF_LARGEST = 2.0


def steps_needed(steps: int, warmup_steps: int) -> int:
    """The optimizer steps that a job must have so that `steps` can be measured."""
    return warmup_steps + PROFILED_STEPS + steps + -(-steps // GROUP)


class StepProfiler:
    """Runs the job's own steps and measures their parts; the weights that result are of no use.

    A step is measured from the end of the one before: waiting for data, forward and backward pass, update. A pass that
    does not synchronize gradients, one in six, shows which part of the others is communication.

    Args:
        rank: This rank.
        measurement: What to measure.
        training: What is trained.
        step_plan: The sizes of batches.
        loader: The batches of each step.
        step: Runs a step.
    """

    def __init__(
        self,
        rank: Rank,
        measurement: Measurement,
        training: Training,
        step_plan: StepPlan,
        loader: StepLoader,
        step: OptimizerStep,
    ) -> None:
        self._measurement = measurement
        self._rank = rank
        self._training = training
        self._step_plan = step_plan
        self._loader = loader
        self._step = step
        self._device = rank.device
        self._group = rank.control_group
        self._clock = Clock(rank.device)
        self._marks: list[tuple[bool, int, list[Any]]] = []

    def run(self) -> bool:
        """Measures and writes the result on rank 0; returns whether it was not stopped."""
        limit_waiting(self._rank.config.request)
        for _ in range(self._measurement.warmup_steps):
            self._run_step(is_synced=True)
        ready = self._profile()
        self._marks.clear()
        is_stopped = self._align()
        psutil.cpu_percent()  # of all cores of this host and all processes, from here on
        for number in range(self._measurement.steps):
            if is_stopped:
                return False
            self._run_step(is_synced=True)
            if (number + 1) % GROUP == 0 or number + 1 == self._measurement.steps:
                self._run_step(is_synced=False)
                is_stopped = self._align()
        self._clock.wait()
        self._write(ready, psutil.cpu_percent() / 100)
        return True

    def _write(self, ready: list[list[float]], busy_cores: float) -> None:
        """Gathers the measurements of all ranks and writes them on rank 0."""
        plan, info = self._step_plan, self._rank.info
        steps, buckets = self._gather_steps(), self._buckets(ready)
        usage = gather_rows([float(self._peak_memory_bytes()), busy_cores], self._group)
        hosts: list[Any] = [None] * info.world_size
        dist.all_gather_object(hosts, info.host_name, group=self._group)
        result = {
            "world_size": plan.world_size,
            "global_batch_size": plan.global_batch_size,
            "train_samples": plan.train_samples,
            "steps_per_epoch": plan.steps_per_epoch,
            "accumulate": plan.accumulate,
            "device": self._device.type,
            "device_name": torch.cuda.get_device_name(self._device) if self._device.type == "cuda" else None,
            "backend": self._rank.config.request.backend,
            "threads": torch.get_num_threads(),
            "hosts": hosts,
            "gradients": ready,
            "buckets": buckets,
            "steps": steps,
            "sweep": self._sweep(max((num_bytes for num_bytes, _ in buckets), default=0.0)),
            "peak_memory_bytes": max(row[0] for row in usage),
            "cores_busy": max(row[1] for row in usage),
        }
        if self._rank.is_first:
            self._rank.layout.measurement_file.write_text(json.dumps(result))
        dist.barrier(group=self._group)

    def _run_step(self, *, is_synced: bool) -> None:
        """Runs one step; without synchronization its gradient is dropped."""
        start = self._marks[-1][2][-1] if self._marks and self._marks[-1][2] else self._clock.mark()
        batch = self._loader.next()
        marks = [start, self._clock.mark()]
        self._step.run(batch, is_synced=is_synced, on_gradients=lambda: marks.append(self._clock.mark()))
        marks.append(self._clock.mark())
        self._marks.append((is_synced, batch.global_batch_size, marks))
        self._loader.prefetch()

    def _align(self) -> bool:
        """Makes the ranks begin the next step together; returns whether any was requested to stop."""
        rows = gather_rows([float(self._rank.context.stop_requested())], self._group)
        self._marks.append((False, 0, []))
        return any(row[0] for row in rows)

    def _profile(self) -> list[list[float]]:
        """When each gradient is ready: [bytes, fraction of the forward and backward pass], by order of parameters."""
        parameters = [parameter for parameter in self._training.state.model.parameters() if parameter.requires_grad]
        fractions: list[list[float]] = [[] for _ in parameters]
        for _ in range(PROFILED_STEPS):
            marks: dict[int, Any] = {}
            with _marking(parameters, self._clock, marks):
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
        """The messages that gradients are sent in, in order: [bytes, fraction at which all their gradients are ready].

        If it is not known which gradients a message has, messages are taken to be ready at even intervals.
        """
        strategy, model = self._training.state.strategy, self._training.state.wrapped[MODEL]
        buckets = strategy.gradient_buckets(model)
        if buckets is None:
            sizes = strategy.gradient_bytes(model)
            return [[size, (number + 1) / len(sizes)] for number, size in enumerate(sizes)]
        gradients = [[ready[number] for number in bucket] for bucket in buckets]
        return [[sum(size for size, _ in bucket), max(fraction for _, fraction in bucket)] for bucket in gradients]

    def _gather_steps(self) -> list[dict[str, Any]]:
        """Each measured step: the seconds of its parts, as mean and maximum over the ranks."""
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
        """All-reduces on the job's own process group: their bytes, and the seconds of each as means over the ranks."""
        if self._step_plan.world_size == 1:
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
def _marking(parameters: list[torch.nn.Parameter], clock: Clock, marks: dict[int, Any]) -> Iterator[None]:
    """Marks, by the number of a parameter, when its gradient is ready."""

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
