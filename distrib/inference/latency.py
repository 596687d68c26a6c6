"""Latency: how long a trained model takes to answer, on every device present, eager and compiled."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from distrib.errors import InferenceError
from distrib.inference.outputs import check_rows, name_outputs
from distrib.inference.predictor import Predictor, pinned
from distrib.inference.signature import InputForm
from distrib.inference.trained_model import TrainedModel
from distrib.train.data.batches import map_tensors
from distrib.train.device import use_threads

Mode = Literal["eager", "compile"]
_WARM_UP_CALLS = 5
_MIN_CALLS, _MAX_CALLS = 20, 5000
_MAX_REASON_LENGTH = 160


@dataclass(frozen=True)
class Row:
    """One measurement, or why there is none.

    Times are in milliseconds of a whole call: inputs to the device, forward pass, outputs back; percentiles over
    `num_calls` calls one after the other. `transfer_ms` is the median part of the copies to and from a GPU, null on a
    CPU, where nothing is copied. `warm_up_seconds` is what came before, compiling included.
    """

    device: str
    mode: Mode
    batch_size: int
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    transfer_ms: float | None = None
    samples_per_second: float | None = None
    num_calls: int = 0
    warm_up_seconds: float | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Device:
    """A device that is measured, as it calls itself."""

    device: torch.device
    name: str


def devices(choice: str, num_threads: int) -> list[Device]:
    """The devices of this machine: the CPU and, where there is one, the first GPU; or the one that was asked for."""
    found = []
    if choice != "cuda":
        found.append(Device(torch.device("cpu"), f"cpu ({num_threads} thread{'s' if num_threads > 1 else ''})"))
    if choice != "cpu" and torch.cuda.is_available():
        found.append(Device(torch.device("cuda", 0), torch.cuda.get_device_name(0)))
    return found


def measure(
    trained: TrainedModel,
    *,
    device: str,
    batch_sizes: Sequence[int],
    modes: Sequence[Mode],
    seconds: float,
    num_threads: int,
) -> Iterator[Row]:
    """Measures one row after the other.

    Args:
        trained: The model.
        device: `auto` for all there are, `cpu` or `cuda`.
        batch_sizes: Rows of a call.
        modes: Whether eager or compiled by `torch.compile` (on a GPU with CUDA graphs).
        seconds: How long each row is measured, at least; warm-up apart.
        num_threads: Torch threads of the CPU.
    """
    use_threads(num_threads)
    form = InputForm.of(trained.signature)
    model = trained.build()
    for place in devices(device, num_threads):
        for mode in modes:
            try:
                forward = _forward(trained, copy.deepcopy(model), place.device, mode)
            except Exception as error:
                if mode == "eager":
                    raise
                yield from (Row(place.name, mode, size, reason=_reason(error)) for size in batch_sizes)
                continue
            yield from (_row(forward, form, place, mode, size, seconds) for size in batch_sizes)


def _forward(trained: TrainedModel, model: nn.Module, device: torch.device, mode: Mode) -> Predictor:
    if mode == "compile":
        os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # in this process: no others to outlive it
        torch.compiler.reset()
        model.compile(mode="reduce-overhead" if device.type == "cuda" else "default", dynamic=False)
    return Predictor(model, device, trained.job.spec.train.precision, trained.predict())


def _row(forward: Predictor, form: InputForm, place: Device, mode: Mode, batch_size: int, seconds: float) -> Row:
    call = _CudaCall(forward, form, batch_size) if place.device.type == "cuda" else _CpuCall(forward, form, batch_size)
    started = time.perf_counter()
    try:
        call.check(batch_size)
        for _ in range(_WARM_UP_CALLS):
            call()
    except Exception as error:
        if mode == "eager" and not isinstance(error, torch.OutOfMemoryError):
            raise InferenceError(
                f"the model refuses made-up inputs of the signature in run.json: {type(error).__name__}: {error}"
            ) from error
        return Row(place.name, mode, batch_size, reason=_reason(error))
    warm_up_seconds = time.perf_counter() - started
    totals, transfers = _repeat(call, seconds)
    p50, p95, p99 = (_percentile(totals, share) for share in (0.50, 0.95, 0.99))
    return Row(
        device=place.name,
        mode=mode,
        batch_size=batch_size,
        p50_ms=p50,
        p95_ms=p95,
        p99_ms=p99,
        transfer_ms=_percentile(transfers, 0.5) if transfers else None,
        samples_per_second=1e3 * batch_size * len(totals) / sum(totals),
        num_calls=len(totals),
        warm_up_seconds=warm_up_seconds,
    )


def _repeat(call: Callable[[], tuple[float, float | None]], seconds: float) -> tuple[list[float], list[float]]:
    """Calls until the time is up; milliseconds of each call, and of its copies where it has any."""
    totals: list[float] = []
    transfers: list[float] = []
    deadline = time.perf_counter() + seconds
    while len(totals) < _MAX_CALLS and (len(totals) < _MIN_CALLS or time.perf_counter() < deadline):
        total, transfer = call()
        totals.append(total)
        if transfer is not None:
            transfers.append(transfer)
    return totals, transfers


class _CpuCall:
    """A call on the CPU, timed."""

    def __init__(self, forward: Predictor, form: InputForm, batch_size: int) -> None:
        self._forward = forward
        self._batch = form.example(batch_size)

    def check(self, num_rows: int) -> None:
        """Whether the model answers each row."""
        check_rows(name_outputs(self._forward.run(self._forward.to_device(self._batch))), num_rows)

    def __call__(self) -> tuple[float, float | None]:
        start = time.perf_counter()
        self._forward.run(self._batch)
        return 1e3 * (time.perf_counter() - start), None


class _CudaCall(_CpuCall):
    """A call on a GPU: from pinned memory and back into it, timed as a whole, the copies by events on the device."""

    def __init__(self, forward: Predictor, form: InputForm, batch_size: int) -> None:
        super().__init__(forward, form, batch_size)
        self._batch = map_tensors(self._batch, pinned)
        self._events = [torch.cuda.Event(enable_timing=True) for _ in range(4)]  # type: ignore[no-untyped-call]

    def __call__(self) -> tuple[float, float | None]:
        begun, copied, computed, returned = self._events
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        start = time.perf_counter()
        begun.record()
        batch = self._forward.to_device(self._batch)
        copied.record()
        outputs = self._forward.run(batch)
        computed.record()
        map_tensors(outputs, self._forward.to_host)
        returned.record()
        returned.synchronize()
        total = 1e3 * (time.perf_counter() - start)
        return total, begun.elapsed_time(copied) + computed.elapsed_time(returned)


def _percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]


def _reason(error: BaseException) -> str:
    """The first line that says something, of errors that say much."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    text = f"{type(error).__name__}: {text}".rstrip(": ")
    return text if len(text) <= _MAX_REASON_LENGTH else f"{text[: _MAX_REASON_LENGTH - 1]}…"


def as_data(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Rows as plain data."""
    return [vars(row) for row in rows]
