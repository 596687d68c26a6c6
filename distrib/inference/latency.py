"""Measures the latency of a trained model on each device of this machine, eager and compiled."""

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
from distrib.inference.signature import InputSignature
from distrib.inference.trained_model import TrainedModel
from distrib.train.data.batches import map_tensors
from distrib.train.process.device import use_threads

Mode = Literal["eager", "compile"]
_WARM_UP_CALLS = 5
_MIN_CALLS, _MAX_CALLS = 20, 5000
_MAX_REASON_LENGTH = 160


@dataclass(frozen=True)
class LatencyRow:
    """One measurement, or the reason why there is none.

    Times are milliseconds of a whole call: copy inputs to the device, forward pass, copy outputs back; percentiles over
    `num_calls` sequential calls. `transfer_ms` is the median time of the copies to and from a GPU, None on a CPU.
    `warm_up_seconds` includes compilation and is not part of the other times.
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
class NamedDevice:
    """A device and its name for the table."""

    device: torch.device
    name: str


def devices(choice: str, num_threads: int) -> list[NamedDevice]:
    """The devices to measure: the CPU and the first GPU, if there is one; or the requested one."""
    found = []
    if choice != "cuda":
        found.append(NamedDevice(torch.device("cpu"), f"cpu ({num_threads} thread{'s' if num_threads > 1 else ''})"))
    if choice != "cpu" and torch.cuda.is_available():
        found.append(NamedDevice(torch.device("cuda", 0), torch.cuda.get_device_name(0)))
    return found


def measure(
    trained: TrainedModel,
    *,
    device: str,
    batch_sizes: Sequence[int],
    modes: Sequence[Mode],
    seconds: float,
    num_threads: int,
) -> Iterator[LatencyRow]:
    """Measures row by row.

    Args:
        trained: The model.
        device: `auto` for all devices, `cpu` or `cuda`.
        batch_sizes: Rows of a call.
        modes: `eager` or `compile` (torch.compile, with CUDA graphs on a GPU).
        seconds: The minimum measuring time of each row, excluding warm-up.
        num_threads: Torch threads of the CPU.
    """
    use_threads(num_threads)
    signature = InputSignature.of(trained.signature)
    model = trained.build()
    for target in devices(device, num_threads):
        for mode in modes:
            try:
                predictor = _make_predictor(trained, copy.deepcopy(model), target.device, mode)
            except Exception as error:
                if mode == "eager":
                    raise
                yield from (LatencyRow(target.name, mode, size, reason=_reason(error)) for size in batch_sizes)
                continue
            yield from (_row(predictor, signature, target, mode, size, seconds) for size in batch_sizes)


def _make_predictor(trained: TrainedModel, model: nn.Module, device: torch.device, mode: Mode) -> Predictor:
    if mode == "compile":
        # Compile in this process: compiler processes would outlive it.
        os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
        torch.compiler.reset()
        model.compile(mode="reduce-overhead" if device.type == "cuda" else "default", dynamic=False)
    return Predictor(model, device, trained.job.spec.train.precision, trained.predict())


def _row(
    predictor: Predictor, signature: InputSignature, target: NamedDevice, mode: Mode, batch_size: int, seconds: float
) -> LatencyRow:
    make_call = _CudaCall if target.device.type == "cuda" else _CpuCall
    call = make_call(predictor, signature, batch_size)
    started = time.perf_counter()
    try:
        call.check(batch_size)
        for _ in range(_WARM_UP_CALLS):
            call()
    except Exception as error:
        if mode == "eager" and not isinstance(error, torch.OutOfMemoryError):
            raise InferenceError(
                f"the model fails on synthetic inputs with the signature in run.json: {type(error).__name__}: {error}"
            ) from error
        return LatencyRow(target.name, mode, batch_size, reason=_reason(error))
    warm_up_seconds = time.perf_counter() - started
    totals, transfers = _repeat(call, seconds)
    p50, p95, p99 = (_percentile(totals, share) for share in (0.50, 0.95, 0.99))
    return LatencyRow(
        device=target.name,
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
    """Repeats the call until the time is up; returns the milliseconds of each call and of its copies, if any."""
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
    """A timed call on the CPU."""

    def __init__(self, predictor: Predictor, signature: InputSignature, batch_size: int) -> None:
        self._predictor = predictor
        self._batch = signature.example(batch_size)

    def check(self, num_rows: int) -> None:
        """Checks that the model returns one output per row."""
        check_rows(name_outputs(self._predictor.run(self._predictor.to_device(self._batch))), num_rows)

    def __call__(self) -> tuple[float, float | None]:
        start = time.perf_counter()
        self._predictor.run(self._batch)
        return 1e3 * (time.perf_counter() - start), None


class _CudaCall(_CpuCall):
    """A timed call on a GPU from and to pinned memory; the copies are timed by CUDA events."""

    def __init__(self, predictor: Predictor, signature: InputSignature, batch_size: int) -> None:
        super().__init__(predictor, signature, batch_size)
        self._batch = map_tensors(self._batch, pinned)
        self._events = [torch.cuda.Event(enable_timing=True) for _ in range(4)]  # type: ignore[no-untyped-call]

    def __call__(self) -> tuple[float, float | None]:
        begun, copied, computed, returned = self._events
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        start = time.perf_counter()
        begun.record()
        batch = self._predictor.to_device(self._batch)
        copied.record()
        outputs = self._predictor.run(batch)
        computed.record()
        map_tensors(outputs, self._predictor.to_host)
        returned.record()
        returned.synchronize()
        total = 1e3 * (time.perf_counter() - start)
        return total, begun.elapsed_time(copied) + computed.elapsed_time(returned)


def _percentile(values: Sequence[float], share: float) -> float:
    """The smallest value such that at least `share` of all values are not larger."""
    ordered = sorted(values)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]


def _reason(error: BaseException) -> str:
    """The first non-empty line of an error message."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    text = f"{type(error).__name__}: {text}".rstrip(": ")
    return text if len(text) <= _MAX_REASON_LENGTH else f"{text[: _MAX_REASON_LENGTH - 1]}…"


def as_data(rows: Sequence[LatencyRow]) -> list[dict[str, Any]]:
    """The rows as plain data for JSON."""
    return [vars(row) for row in rows]
