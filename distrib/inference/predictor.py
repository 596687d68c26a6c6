"""Runs a model on a batch; used by predict, latency and serve."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from distrib.errors import InferenceError, JobError
from distrib.inference.columns import Columns
from distrib.inference.outputs import check_rows, name_outputs, to_numpy
from distrib.train.data.batches import map_tensors, to_device
from distrib.train.optimization.precision import Precision

PrecisionName = Literal["fp32", "bf16", "fp16"]


@dataclass(frozen=True)
class PendingOutputs:
    """Outputs that may still be being copied from the device."""

    outputs: dict[str, Any]
    event: torch.cuda.Event | None

    def columns(self) -> Columns:
        """The outputs on the host; waits until they are copied."""
        if self.event is not None:
            self.event.synchronize()
        return {name: to_numpy(column) for name, column in self.outputs.items()}


class Predictor:
    """A model on its device, with its precision and the job's `predict`.

    Args:
        model: The model in evaluation mode; moved to `device`.
        device: The device to compute on.
        precision: As in training; bf16 and fp16 run under autocast.
        predict: `predict(model, batch)`; None for the raw outputs of the model.
    """

    def __init__(
        self,
        model: nn.Module,
        device: torch.device,
        precision: PrecisionName = "fp32",
        predict: Callable[[nn.Module, Any], Any] | None = None,
    ) -> None:
        self.model = model.to(device)
        self.device = device
        self._precision = Precision(precision, device)
        self._predict = predict or raw_outputs

    def __call__(self, batch: Any, num_rows: int) -> Columns:
        """The outputs for a host batch of `num_rows` rows.

        Raises:
            InferenceError: The outputs are not columns of `num_rows` rows.
        """
        return self.start(batch, num_rows).columns()

    def start(self, batch: Any, num_rows: int) -> PendingOutputs:
        """Starts computing the outputs for a host batch; on CUDA returns before they are complete."""
        outputs = name_outputs(self.run(self.to_device(batch)))
        check_rows(outputs, num_rows)
        outputs = {name: map_tensors(column, self.to_host) for name, column in outputs.items()}
        event = None
        if self.device.type == "cuda":
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record(torch.cuda.current_stream(self.device))
        return PendingOutputs(outputs, event)

    def to_device(self, batch: Any) -> Any:
        """Copies a host batch to the device, asynchronously from pinned memory on CUDA."""
        if self.device.type != "cuda":
            return to_device(batch, self.device)
        return to_device(map_tensors(batch, pinned), self.device)

    def run(self, batch: Any) -> Any:
        """The result of the model or the job's `predict` for a batch on the device; user code may enable gradients."""
        with torch.no_grad(), self._precision.autocast():
            return self._predict(self.model, batch)

    def to_host(self, tensor: torch.Tensor) -> torch.Tensor:
        """Copies a tensor to the host; on CUDA asynchronously into pinned memory."""
        if tensor.device.type != "cuda":
            return tensor.detach()
        host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        return host.copy_(tensor.detach(), non_blocking=True)


def pinned(tensor: torch.Tensor) -> torch.Tensor:
    """A host tensor in pinned memory, which allows asynchronous copies to a GPU."""
    return tensor if tensor.device.type != "cpu" or tensor.is_pinned() else tensor.pin_memory()


def raw_outputs(model: nn.Module, batch: Any) -> Any:
    """The raw outputs of the model for the inputs of a batch."""
    inputs = inputs_of(batch)
    return model(**inputs) if isinstance(inputs, Mapping) else model(inputs)


def inputs_of(batch: Any) -> Any:
    """The model's inputs in a batch: all of a tensor or dict, or the first element of a pair.

    Raises:
        InferenceError: The batch has another structure, so the job must define `predict`.
    """
    if isinstance(batch, torch.Tensor | Mapping):
        return batch
    if isinstance(batch, list | tuple) and len(batch) in (1, 2):
        return batch[0]
    kind = f"{type(batch).__name__} of {len(batch)}" if isinstance(batch, list | tuple) else type(batch).__name__
    raise InferenceError(
        f"the dataset's batches are a {kind}; define with predict: in the job how to call the model on them"
    )


def choose_device(name: str, index: int = 0) -> torch.device:
    """Resolves `auto`, `cpu` or `cuda` on this machine; `auto` prefers a GPU.

    Args:
        name: `auto`, `cpu` or `cuda`.
        index: Which GPU, modulo the number of GPUs.

    Raises:
        JobError: `cuda` was requested, but there is no GPU.
    """
    num_gpus = torch.cuda.device_count()
    if name == "cuda" and num_gpus == 0:
        raise JobError("cuda was requested, but this machine has no GPU; use cpu or auto", field="`device`")
    if name == "cpu" or num_gpus == 0:
        return torch.device("cpu")
    return torch.device("cuda", index % num_gpus)
