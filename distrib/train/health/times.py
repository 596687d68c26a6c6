"""How long a rank computes in its steps and how long it waits for the other ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from distrib.compat.pytorch.backward import call_after_gradients
from distrib.train.phases import Phase, RankProgress
from distrib.train.process.clock import Clock

NUM_VALUES = 4
"""The values of `MeanTimes`, as the ranks exchange them."""


@dataclass(frozen=True)
class MeanTimes:
    """Means over the measured steps of one log interval, in seconds a step.

    Attributes:
        data: Waiting for the step's batch.
        compute: The step without waiting for other ranks.
        wait: Waiting for other ranks.
        square: The mean of (data + compute)², from which the variance follows.
    """

    data: float = 0.0
    compute: float = 0.0
    wait: float = 0.0
    square: float = 0.0

    @property
    def own(self) -> float:
        """The time that this rank needs for a step when it waits for no other."""
        return self.data + self.compute

    def as_values(self) -> tuple[float, float, float, float]:
        """For the exchange between the ranks."""
        return self.data, self.compute, self.wait, self.square


@dataclass
class _Sums:
    num_steps: int = 0
    data: float = 0.0
    compute: float = 0.0
    wait: float = 0.0
    square: float = 0.0

    def add(self, data: float, compute: float, wait: float) -> None:
        self.num_steps += 1
        self.data += data
        self.compute += compute
        self.wait += wait
        self.square += (data + compute) ** 2

    def means(self) -> MeanTimes:
        count = max(1, self.num_steps)
        return MeanTimes(self.data / count, self.compute / count, self.wait / count, self.square / count)


@dataclass
class _Step:
    """The marks of one step: its begin, its end, and the begin and end of each wait for other ranks."""

    begin: Any = None
    end: Any = None
    waits: list[tuple[Any, Any]] = field(default_factory=list)
    fetches: list[tuple[Any, Any]] = field(default_factory=list)
    data_seconds: float = 0.0


class RankTimes:
    """Measures the steps of this rank.

    Every rank leaves an all-reduce at the same time, so the duration of a backward pass does not show which rank came
    late. What does is the moment at which a rank has computed its last gradient and begins to wait for those of the
    others. A hook on the parameter whose gradient comes last marks that moment. A step in which that gradient does not
    come is not measured, and the next one finds out anew which gradient comes last.
    A rank that waits says so in its progress, and may do something else `meanwhile`.

    Args:
        device: The rank's device. On CUDA, times are those of the GPU and become known at `flush`.
        world_size: The number of ranks; a single one never waits.
        progress: Where the rank publishes that it waits.
    """

    def __init__(self, device: torch.device, world_size: int, progress: RankProgress) -> None:
        self._progress = progress
        self._clock = Clock(device)
        self._is_alone = world_size == 1
        self._parameters: Sequence[torch.Tensor] = ()
        self._hooks: dict[int, Any] = {}
        self._last: int | None = None
        self._arrived: Any = None
        self._while_waiting: Callable[[], object] = lambda: None
        self._is_synced = False
        self._has_varied = False
        self._is_measured = True
        self._step = _Step()
        self._open = _Sums()
        self._closed: dict[int, _Sums] = {}
        self._unresolved: list[tuple[_Sums, _Step]] = []

    def watch(self, parameters: Sequence[torch.Tensor]) -> None:
        """Marks from now on when the gradients of these parameters, which other ranks wait for, are computed."""
        self._parameters = () if self._is_alone else parameters

    def meanwhile(self, function: Callable[[], object]) -> None:
        """Has `function` called in each step once this rank's gradients are computed and it waits for the others'."""
        self._while_waiting = function

    def begin_step(self) -> None:
        """Begins a step; its batch is there."""
        self._step = _Step(self._clock.mark())
        self._is_measured = True

    def begin_backward(self, loss: torch.Tensor) -> None:
        """Begins the backward pass of `loss`, whose gradients are synchronized."""
        if not self._parameters:
            return
        self._arrived, self._is_synced = None, True
        if not self._hooks:
            for number, parameter in enumerate(self._parameters):
                if parameter.requires_grad:
                    hook = parameter.register_post_accumulate_grad_hook(self._mark(number))  # type: ignore[no-untyped-call]
                    self._hooks[number] = hook
        if loss.requires_grad and not self._knows_last:
            loss.register_hook(lambda _: call_after_gradients(self._begin_waiting))  # type: ignore[no-untyped-call]

    def end_backward(self) -> None:
        """Ends that backward pass; all ranks' gradients have arrived."""
        if not self._parameters:
            return
        self._is_synced = False
        if self._arrived is None:
            self._is_measured, self._has_varied = False, True
            self._keep_hook(None)
            return
        self._step.waits.append((self._arrived, self._clock.mark()))
        if len(self._hooks) > 1:
            self._keep_hook(self._last)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around a collective that this rank waits for."""
        begin = self._clock.mark()
        try:
            with self._progress.during(Phase.REDUCE):
                yield
        finally:
            self._step.waits.append((begin, self._clock.mark()))

    @contextmanager
    def fetching(self) -> Iterator[None]:
        """Around fetching data within a step; on CUDA, only the time counts in which the GPU has nothing else to do."""
        begin = self._clock.mark()
        with self._progress.during(Phase.DATA):
            yield
        self._step.fetches.append((begin, self._clock.mark()))

    def end_step(self, data_seconds: float) -> None:
        """Ends the step; `data_seconds` is how long it waited for its batch."""
        step, self._step = self._step, _Step()
        if not self._is_measured:
            return
        step.end, step.data_seconds = self._clock.mark(), data_seconds
        if self._clock.has_events:
            self._unresolved.append((self._open, step))
        else:
            self._resolve(self._open, step)

    def end_window(self, step: int) -> None:
        """Ends the log interval with the step that has just ended, global step `step`."""
        self._closed[step] = self._open
        self._open = _Sums()

    def flush(self) -> dict[int, MeanTimes]:
        """The times of the log intervals that have ended since the last call, by their last step."""
        for sums, step in self._unresolved:
            self._resolve(sums, step)
        self._unresolved.clear()
        closed, self._closed = self._closed, {}
        return {step: sums.means() for step, sums in closed.items()}

    def _resolve(self, sums: _Sums, step: _Step) -> None:
        waited = sum(self._clock.seconds(begin, end) for begin, end in step.waits)
        fetched = sum(self._clock.seconds(begin, end) for begin, end in step.fetches)
        computed = self._clock.seconds(step.begin, step.end) - waited - fetched
        sums.add(step.data_seconds + fetched, max(0.0, computed), waited)

    def _mark(self, number: int) -> Callable[[torch.Tensor], None]:
        def mark(_: torch.Tensor) -> None:
            self._arrived = self._clock.mark()
            self._last = number
            if self._is_synced and self._knows_last:
                call_after_gradients(self._begin_waiting)

        return mark

    @property
    def _knows_last(self) -> bool:
        """Whether the gradient that came last has done so in every step since."""
        return len(self._hooks) == 1 and not self._has_varied

    def _begin_waiting(self) -> None:
        self._progress.enter(Phase.REDUCE)
        self._while_waiting()

    def _keep_hook(self, kept: int | None) -> None:
        for number in [number for number in self._hooks if number != kept]:
            self._hooks.pop(number).remove()
