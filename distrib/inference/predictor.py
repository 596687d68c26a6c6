"""The one way from a batch to a model's answers: under predict, export, latency and serve alike."""

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
from distrib.train.precision import Precision

PrecisionName = Literal["fp32", "bf16", "fp16"]


@dataclass(frozen=True)
class Pending:
    """Answers that may still be on their way from the device."""

    outputs: dict[str, Any]
    event: torch.cuda.Event | None

    def columns(self) -> Columns:
        """The answers on the host; waits for them."""
        if self.event is not None:
            self.event.synchronize()
        return {name: to_numpy(column) for name, column in self.outputs.items()}


class Predictor:
    """A model on its device, and how it answers a batch.

    Args:
        model: In evaluation mode; moved to `device` here, once.
        device: Where it computes.
        precision: As in training: bf16 and fp16 run under autocast.
        predict: `predict(model, batch)`; None for the model's raw outputs.
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
        """The answers to a host batch of `num_rows` rows.

        Raises:
            InferenceError: They are no columns of as many rows.
        """
        return self.start(batch, num_rows).columns()

    def start(self, batch: Any, num_rows: int) -> Pending:
        """Begins to answer a host batch; on CUDA returns while the device still computes."""
        outputs = name_outputs(self.run(self.to_device(batch)))
        check_rows(outputs, num_rows)
        outputs = {name: map_tensors(column, self.to_host) for name, column in outputs.items()}
        event = None
        if self.device.type == "cuda":
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record(torch.cuda.current_stream(self.device))
        return Pending(outputs, event)

    def to_device(self, batch: Any) -> Any:
        """A host batch on the device; copied from pinned memory without waiting."""
        if self.device.type != "cuda":
            return to_device(batch, self.device)
        return to_device(map_tensors(batch, pinned), self.device)

    def run(self, batch: Any) -> Any:
        """What the model, or the job's `predict`, gives for a batch on the device; user code may enable gradients."""
        with torch.no_grad(), self._precision.autocast():
            return self._predict(self.model, batch)

    def to_host(self, tensor: torch.Tensor) -> torch.Tensor:
        """A tensor on the host; on CUDA still on its way into pinned memory when this returns."""
        if tensor.device.type != "cuda":
            return tensor.detach()
        host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        return host.copy_(tensor.detach(), non_blocking=True)


def pinned(tensor: torch.Tensor) -> torch.Tensor:
    """A host tensor in pinned memory, from which a copy to a GPU need not be waited for."""
    return tensor if tensor.device.type != "cpu" or tensor.is_pinned() else tensor.pin_memory()


def raw_outputs(model: nn.Module, batch: Any) -> Any:
    """The model's own outputs for the inputs of a batch."""
    inputs = inputs_of(batch)
    return model(**inputs) if isinstance(inputs, Mapping) else model(inputs)


def inputs_of(batch: Any) -> Any:
    """What of a batch the model is given: all of a tensor or a dict, the first of a pair.

    Raises:
        InferenceError: The batch has another form, for which only the job can tell.
    """
    if isinstance(batch, torch.Tensor | Mapping):
        return batch
    if isinstance(batch, list | tuple) and len(batch) in (1, 2):
        return batch[0]
    form = f"{type(batch).__name__} of {len(batch)}" if isinstance(batch, list | tuple) else type(batch).__name__
    raise InferenceError(
        f"the dataset gives batches of the form {form}; say with predict: in the job how the model is given them"
    )


def choose_device(name: str, index: int = 0) -> torch.device:
    """The device that `auto`, `cpu` or `cuda` means on this machine: a GPU where there is one.

    Args:
        name: What was asked for.
        index: Which GPU; counted on from the first where there are fewer.

    Raises:
        JobError: CUDA is asked for, and there is no GPU.
    """
    num_gpus = torch.cuda.device_count()
    if name == "cuda" and num_gpus == 0:
        raise JobError("cuda is asked for, but this machine has no GPU; use cpu or auto", field="--device")
    if name == "cpu" or num_gpus == 0:
        return torch.device("cpu")
    return torch.device("cuda", index % num_gpus)
