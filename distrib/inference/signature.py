"""The input signature of run.json: shape and type of the model's inputs, and synthetic batches that match it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from distrib.errors import InferenceError

INPUTS = "inputs"
"""The name of the inputs if they are a single, unnamed tensor."""


@dataclass(frozen=True)
class TensorSignature:
    """The signature of one input tensor.

    Attributes:
        row_shape: Its shape without the first (batch) dimension.
        dtype: The name of its torch dtype, such as `float32`.
    """

    row_shape: tuple[int, ...]
    dtype: str

    @property
    def torch_dtype(self) -> torch.dtype:
        """The torch dtype."""
        dtype: torch.dtype = getattr(torch, self.dtype)
        return dtype


@dataclass(frozen=True)
class InputSignature:
    """Which part of a batch is the inputs, and the tensors that they consist of.

    Attributes:
        tensors: By name; a single, unnamed tensor is `inputs`.
        is_named: Whether the inputs are a dict.
        num_parts: 0 if the batch is the inputs; 1 or 2 if they are the first of this many parts, the second being the
            targets.
    """

    tensors: Mapping[str, TensorSignature]
    is_named: bool
    num_parts: int

    @classmethod
    def of(cls, signature: Any) -> InputSignature:
        """Reads the signature of a batch as run.json stores it.

        Raises:
            InferenceError: There is none, or the inputs are not tensors with a batch dimension.
        """
        if signature is None:
            raise InferenceError(
                "run.json has no input signature, which training writes in its first step; train this run again"
            )
        is_list = isinstance(signature, list)
        if is_list and len(signature) not in (1, 2):
            raise InferenceError(
                f"the run was trained on batches of {len(signature)} parts, so it is unknown which are the inputs; "
                "use a dataset whose samples are (inputs, targets), or a dict"
            )
        inputs = signature[0] if is_list else signature
        named = {INPUTS: inputs} if _is_tensor(inputs) else inputs
        if not isinstance(named, Mapping) or not all(map(_is_tensor, named.values())):
            raise InferenceError(f"the model's inputs are not tensors: the input signature in run.json is {inputs}")
        tensors = {}
        for name, tensor in named.items():
            if not tensor["shape"]:
                raise InferenceError(f"the input '{name}' has no batch dimension; its shape in run.json is []")
            tensors[name] = TensorSignature(tuple(tensor["shape"][1:]), tensor["dtype"])
        return cls(tensors, named is inputs, len(signature) if is_list else 0)

    def batch(self, tensors: Mapping[str, torch.Tensor]) -> Any:
        """A batch like those that the run was trained on, with None for the targets."""
        inputs: Any = dict(tensors) if self.is_named else tensors[INPUTS]
        if self.num_parts == 0:
            return inputs
        return [inputs, *[None] * (self.num_parts - 1)]

    def example(self, num_rows: int, seed: int = 0) -> Any:
        """A synthetic batch: standard normal values, or zeros and ones for integer types."""
        return self.batch(self.tensors_of_example(num_rows, seed))

    def tensors_of_example(self, num_rows: int, seed: int = 0) -> dict[str, torch.Tensor]:
        """The inputs of a synthetic batch, by name."""
        generator = torch.Generator().manual_seed(seed)
        return {name: _synthesize(tensor, num_rows, generator) for name, tensor in self.tensors.items()}


def example_batch(signature: Any, num_rows: int) -> Any:
    """A synthetic batch that fits the signature; InferenceError if the signature cannot be read."""
    return InputSignature.of(signature).example(num_rows)


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Mapping) and value.keys() == {"shape", "dtype"} and isinstance(value["shape"], list)


def _synthesize(signature: TensorSignature, num_rows: int, generator: torch.Generator) -> torch.Tensor:
    shape, dtype = (num_rows, *signature.row_shape), signature.torch_dtype
    if dtype.is_floating_point or dtype.is_complex:
        return torch.randn(shape, generator=generator).to(dtype)
    return torch.randint(0, 2, shape, generator=generator).to(dtype)
